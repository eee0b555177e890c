//! Adds up the stack of every program's call chains, has the kernel verify every program and prints the instructions
//! that it walked. Fails where an older kernel would grant less stack, and above the budget kept in
//! `tests/verified-instructions.toml`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use lb_tests::screen::{Colour, Screen};
use lb_tests::{budget, stack};

fn main() -> ExitCode {
    let screen = Screen::new();
    screen.finish(verify(screen))
}

fn verify(screen: Screen) -> Result<()> {
    // Before the kernel is asked: it would refuse a chain that is too deep in words that name no function.
    let mut faults = Vec::new();
    for chain in stack::deepest(lb_userspace::OBJECT)? {
        let free = stack::LIMIT.saturating_sub(chain.size());
        let line = format!("{chain}; {free} free");
        match chain.fault() {
            Some(fault) => {
                screen.line(screen.paint(Colour::Red, line));
                faults.push(fault);
            }
            None => screen.line(screen.paint(Colour::Green, line)),
        }
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let rows = budget::verify(lb_userspace::OBJECT)?;
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
