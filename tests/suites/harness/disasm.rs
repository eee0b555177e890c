//! What `cargo xtask disasm` shows is the program that the kernel runs.

use anyhow::{Result, ensure};
use lb_tests::command;
use lb_tests::disasm::{Listing, Loaded, Symbols};
use lb_tests::poll::{self, SOON};

#[test]
fn the_machine_code_of_the_data_plane_is_whole_and_nothing_of_it_stays() -> Result<()> {
    let loaded = Loaded::load("lb")?;
    let compiled = loaded.compiled()?;
    let shown = command::line(&format!("bpftool prog show id {}", compiled.id))?;

    let symbols = Symbols::of_the_kernel()?;
    let summary = Listing::new(&compiled, &symbols).summary();
    let bytes: usize = summary.functions.iter().map(|(_, _, bytes)| bytes).sum();
    let translated = 8 * summary.instructions;
    assert!(
        shown.contains(&format!("xlated {translated}B  jited {bytes}B")),
        "{summary:?}\n{shown}"
    );
    let instructions: u32 = summary.functions.iter().map(|(_, count, _)| count).sum();
    assert_eq!(instructions, summary.instructions, "{summary:?}");
    assert_eq!(summary.functions[0].0, "lb", "{summary:?}");
    // A redirect, and what it takes to answer: the data plane can't do without either.
    for call in ["dev_map_redirect", "bpf_xdp_adjust_head"] {
        assert!(summary.calls.contains_key(call), "{summary:?}");
    }
    let nameless = summary.calls.keys().find(|name| name.contains(' '));
    assert_eq!(nameless, None);

    let first = compiled.functions[0].address;
    let line = compiled.lines.iter().find(|(address, _)| *address == first);
    let line = line.map(|(_, line)| line.to_string()).unwrap_or_default();
    assert!(line.starts_with("; lb-ebpf/src/main.rs:"), "{line}");

    let id = compiled.id;
    drop(loaded);
    poll::until(SOON, "the program's end", || {
        let shown = command::output(&mut command::words(&format!("bpftool prog show id {id}")))?;
        ensure!(!shown.status.success(), "{}", command::said(&shown));
        Ok(())
    })
}

#[test]
fn an_unknown_program_is_answered_with_those_that_there_are() {
    let error = Loaded::load("lbb").err().map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(
        error.starts_with("no program `lbb`") && error.contains("lb, maintenance"),
        "{error}"
    );
}
