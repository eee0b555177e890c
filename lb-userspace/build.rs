//! Builds the XDP program that the agent embeds, `$OUT_DIR/lb.o`.

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::recipe::build_script("lb")
}
