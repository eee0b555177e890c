//! Builds the programs that the suites load beside the agent's, `$OUT_DIR/harness.o`.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::recipe::build_script("harness")
}
