//! Machine code as text: instructions under the source's lines, and what they come to.

use std::collections::BTreeMap;
use std::fmt;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Mnemonic, SymbolResolver,
    SymbolResult,
};

use super::{Compiled, Function, Line, Symbols};
use crate::screen::{Colour, Screen};

/// A compiled program, decoded.
pub struct Listing<'a> {
    compiled: &'a Compiled,
    symbols: &'a Symbols,
}

/// What a program comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// BPF instructions.
    pub instructions: u32,
    /// Name, BPF instructions and bytes of machine code of each function.
    pub functions: Vec<(String, u32, usize)>,
    /// How many calls in the code go to which function of the kernel.
    pub calls: BTreeMap<String, usize>,
}

impl<'a> Listing<'a> {
    /// The listing of a program, with the kernel's functions by their names.
    #[must_use]
    pub fn new(compiled: &'a Compiled, symbols: &'a Symbols) -> Self {
        Self { compiled, symbols }
    }

    /// Prints every function.
    pub fn print(&self, screen: Screen) {
        let lines: BTreeMap<u64, &Line> = self
            .compiled
            .lines
            .iter()
            .map(|(address, line)| (*address, line))
            .collect();
        for function in &self.compiled.functions {
            screen.heading(format_args!("{}:", function.name));
            let mut shown = None;
            let mut formatter = self.formatter(function);
            for instruction in function.decode() {
                let line = lines.get(&instruction.ip()).copied();
                if let Some(line) = line.filter(|line| shown != Some(*line)) {
                    screen.line(screen.paint(Colour::Blue, line));
                    shown = Some(line);
                }
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                let offset = instruction.ip() - function.address;
                screen.line(format_args!("{offset:8x}   {text}"));
            }
        }
    }

    /// What it comes to.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut calls = BTreeMap::new();
        let functions = &self.compiled.functions;
        for instruction in functions.iter().flat_map(Function::decode) {
            let target = instruction.near_branch_target();
            if instruction.mnemonic() == Mnemonic::Call && self.function(target).is_none() {
                let name = self
                    .symbols
                    .at(target)
                    .map_or_else(|| format!("a function at {target:#x}"), ToOwned::to_owned);
                *calls.entry(name).or_default() += 1;
            }
        }
        Summary {
            instructions: self.compiled.instructions,
            functions: functions
                .iter()
                .map(|function| {
                    let Function {
                        name,
                        code,
                        instructions,
                        ..
                    } = function;
                    (name.clone(), *instructions, code.len())
                })
                .collect(),
            calls,
        }
    }

    /// The function of the program that begins at an address.
    fn function(&self, address: u64) -> Option<&Function> {
        let mut functions = self.compiled.functions.iter();
        functions.find(|function| function.address == address)
    }

    fn formatter(&self, function: &Function) -> IntelFormatter {
        let names = self
            .compiled
            .functions
            .iter()
            .map(|function| (function.address, function.name.clone()));
        let targets = function.decode().filter_map(|instruction| {
            let target = instruction.near_branch_target();
            let inside = target.checked_sub(function.address);
            let inside = inside.filter(|offset| *offset < function.code.len() as u64);
            match (self.symbols.at(target), inside) {
                _ if target == 0 => None,
                (Some(name), None) => Some((target, name.to_owned())),
                (None, Some(offset)) => Some((target, format!("{offset:x}"))),
                _ => None,
            }
        });
        let names = Names(targets.chain(names).collect());
        let mut formatter = IntelFormatter::with_options(Some(Box::new(names)), None);
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_uppercase_hex(false);
        options.set_space_after_operand_separator(true);
        options.set_show_branch_size(false);
        options.set_first_operand_char_index(8);
        formatter
    }
}

impl Function {
    fn decode(&self) -> impl Iterator<Item = Instruction> {
        Decoder::with_ip(64, &self.code, self.address, DecoderOptions::NONE).into_iter()
    }
}

/// Where branches go.
struct Names(BTreeMap<u64, String>);

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        _instruction_operand: Option<u32>,
        address: u64,
        _address_size: u32,
    ) -> Option<SymbolResult<'_>> {
        let is_branch = instruction.near_branch_target() == address;
        let name = is_branch.then(|| self.0.get(&address))??;
        Some(SymbolResult::with_str(address, name))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, number, text } = self;
        let place = format!("; {}:{number}  {text}", short(file));
        f.write_str(place.trim_end())
    }
}

/// A path without what every path of its kind begins with: the checkout, the registry, the compiler's sources.
fn short(file: &str) -> &str {
    let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let checkout = checkout.strip_suffix("tests/").unwrap_or(checkout);
    if let Some(ours) = file.strip_prefix(checkout) {
        return ours;
    }
    let registry = file.split_once("/registry/src/");
    let package = registry.and_then(|(_, rest)| rest.split_once('/'));
    let library = file.split_once("/library/");
    package.or(library).map_or(file, |(_, rest)| rest)
}

impl Summary {
    /// Prints it.
    pub fn print(&self, screen: Screen) {
        let Self {
            instructions,
            functions,
            calls,
        } = self;
        let bytes: usize = functions.iter().map(|(_, _, bytes)| bytes).sum();
        screen.heading(format_args!(
            "{instructions} BPF instructions, {bytes} bytes of machine code"
        ));
        for (name, instructions, bytes) in functions {
            screen.line(format_args!(
                "{instructions:6} instructions {bytes:7} bytes  {name}"
            ));
        }
        let mut calls: Vec<_> = calls.iter().collect();
        calls.sort_by_key(|(name, count)| (usize::MAX - **count, *name));
        let total: usize = calls.iter().map(|(_, count)| **count).sum();
        screen.heading(format_args!("{total} calls into the kernel"));
        for (name, count) in calls {
            screen.line(format_args!("{count:6}  {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two functions: the first calls the second and a function of the kernel, twice.
    fn program() -> (Compiled, Symbols) {
        let call = |from: u64, to: u64| {
            let distance = i32::try_from(to.cast_signed() - (from.cast_signed() + 5)).unwrap();
            [&[0xe8], &distance.to_le_bytes()[..]].concat()
        };
        let code = [
            call(0x1000, 0x1100),
            call(0x1005, 0x2000),
            call(0x100a, 0x2000),
            vec![0xeb, 0xfe, 0xc3],
        ]
        .concat();
        let function = |name: &str, address, code| Function {
            name: name.to_owned(),
            address,
            code,
            instructions: 4,
        };
        let compiled = Compiled {
            id: 1,
            instructions: 8,
            functions: vec![
                function("first", 0x1000, code),
                function("second", 0x1100, vec![0xc3]),
            ],
            lines: Vec::new(),
        };
        (compiled, Symbols::read("2000 T bpf_of_the_kernel\n"))
    }

    #[test]
    fn calls_within_the_program_are_no_calls_into_the_kernel() {
        let (compiled, symbols) = program();
        assert_eq!(
            Listing::new(&compiled, &symbols).summary(),
            Summary {
                instructions: 8,
                functions: vec![("first".to_owned(), 4, 18), ("second".to_owned(), 4, 1)],
                calls: BTreeMap::from([("bpf_of_the_kernel".to_owned(), 2)]),
            }
        );
        let nameless = Listing::new(&compiled, &Symbols::default()).summary();
        assert_eq!(
            nameless.calls,
            BTreeMap::from([("a function at 0x2000".to_owned(), 2)])
        );
    }

    #[test]
    fn a_line_stands_under_the_path_that_a_reader_knows() {
        let line = |file: &str, text: &str| Line {
            file: file.to_owned(),
            number: 7,
            text: text.to_owned(),
        };
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../lb-ebpf/src/main.rs");
        let ours = ours.replace("tests/../", "");
        for (file, text, shown) in [
            (ours.as_str(), "go()", "; lb-ebpf/src/main.rs:7  go()"),
            (
                "/root/.cargo/registry/src/index-1/aya-ebpf-0.2.1/src/lib.rs",
                "x",
                "; aya-ebpf-0.2.1/src/lib.rs:7  x",
            ),
            (
                "/usr/src/rustc-1.96.0/library/core/src/bool.rs",
                "",
                "; core/src/bool.rs:7",
            ),
            ("elsewhere.rs", "x", "; elsewhere.rs:7  x"),
        ] {
            assert_eq!(line(file, text).to_string(), shown);
        }
    }

    #[test]
    fn branches_name_where_they_go() {
        let (compiled, symbols) = program();
        let listing = Listing::new(&compiled, &symbols);
        let function = &compiled.functions[0];
        let mut formatter = listing.formatter(function);
        let texts: Vec<_> = function
            .decode()
            .map(|instruction| {
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(
            texts,
            [
                "call second",
                "call bpf_of_the_kernel",
                "call bpf_of_the_kernel",
                "jmp f",
                "ret"
            ]
        );
    }
}
