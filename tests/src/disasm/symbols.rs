//! Names of the kernel's functions by their addresses.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, ensure};

/// The kernel's functions.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<u64, String>);

impl Symbols {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn of_the_kernel() -> Result<Self> {
        const FILE: &str = "/proc/kallsyms";
        let symbols = Self::read(&fs::read_to_string(FILE).context(FILE)?);
        ensure!(
            !symbols.0.is_empty(),
            "{FILE} shows no addresses: this needs root, and kernel.kptr_restrict below 2"
        );
        Ok(symbols)
    }

    /// Reads lines of an address, a type and a name.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let address = words
                .next()
                .and_then(|word| u64::from_str_radix(word, 16).ok());
            if let (Some(address @ 1..), Some("t" | "T" | "w" | "W"), Some(name)) =
                (address, words.next(), words.next())
            {
                names.entry(address).or_insert_with(|| name.to_owned());
            }
        }
        Self(names)
    }

    /// The function that begins at an address.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<&str> {
        self.0.get(&address).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_and_data_is_not() {
        let symbols = Symbols::read(
            "ffffffff81000010 T first\nffffffff81000010 t other_name\nffffffff81000020 d datum\nffffffffc0000030 t loaded\t[module]\n",
        );
        assert_eq!(symbols.at(0xffff_ffff_8100_0010), Some("first"));
        assert_eq!(symbols.at(0xffff_ffff_c000_0030), Some("loaded"));
        assert_eq!(symbols.at(0xffff_ffff_8100_0020), None);
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        assert!(Symbols::read("0000000000000000 T first\n").0.is_empty());
    }
}
