//! Has the kernel verify every program of the object, prints the instructions that it walked, and fails above the
//! budget kept in `tests/verified-instructions.toml`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use lb_tests::budget;
use lb_tests::screen::{Colour, Screen};

fn main() -> ExitCode {
    let screen = Screen::new();
    screen.finish(verify(screen))
}

fn verify(screen: Screen) -> Result<()> {
    let rows = budget::verify(lb_userspace::OBJECT)?;
    let mut faults = Vec::new();
    for row in &rows {
        let colour = if row.fault().is_some() {
            Colour::Red
        } else {
            Colour::Green
        };
        screen.line(screen.paint(colour, row));
        faults.extend(row.fault());
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    screen.line("verify: ok");
    Ok(())
}
