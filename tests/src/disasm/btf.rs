//! The strings and the names of functions in a program's BTF, `Documentation/bpf/btf.rst` of the kernel.

use std::str;

use anyhow::{Context, Result, bail};

/// A program's types.
pub(crate) struct Btf {
    strings: Vec<u8>,
    /// Offsets of the functions' names by type; 0 for other types, and for type 0, which is none.
    functions: Vec<u32>,
}

/// Bytes of a type's head: offset of its name, kind and number of members, size or another type.
const HEAD: usize = 12;

impl Btf {
    /// Reads it.
    ///
    /// # Errors
    /// Where these bytes are none, or have a kind of type that came after Linux 6.18.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self> {
        let word = |position| word(bytes, position).context("the header is cut off");
        let length = word(4)?;
        let part = |offset: u32, size: u32| {
            let begin = (length + offset) as usize;
            let part = bytes.get(begin..begin + size as usize);
            part.context("a part is cut off")
        };
        let types = part(word(8)?, word(12)?)?;
        let strings = part(word(16)?, word(20)?)?.to_vec();
        Ok(Self {
            strings,
            functions: functions(types)?,
        })
    }

    /// The string at an offset.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn string(&self, offset: u32) -> Result<&str> {
        let rest = self.strings.get(offset as usize..);
        let rest = rest.with_context(|| format!("no string {offset}"))?;
        let end = rest.iter().position(|byte| *byte == 0);
        Ok(str::from_utf8(&rest[..end.unwrap_or(rest.len())])?)
    }

    /// The name of a function, as the source has it.
    ///
    /// # Errors
    /// Where the type is none.
    pub(crate) fn function(&self, type_id: u32) -> Result<String> {
        match self.functions.get(type_id as usize) {
            Some(&name) if name != 0 => Ok(plain(self.string(name)?)),
            _ => bail!("type {type_id} is no function"),
        }
    }
}

/// A name with its `_3A_` turned into `:` again; the kernel takes names of letters, digits and `_` only, so the linker
/// writes other characters by their numbers.
fn plain(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('_') {
        text.push_str(before);
        let code = after.get(..2).filter(|_| after[2..].starts_with('_'));
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        if let Some(code) = code.filter(u8::is_ascii_punctuation) {
            text.push(code.into());
            rest = &after[3..];
        } else {
            text.push('_');
            rest = after;
        }
    }
    text + rest
}

fn functions(mut types: &[u8]) -> Result<Vec<u32>> {
    const FUNCTION: u32 = 12;
    let mut names = vec![0];
    while !types.is_empty() {
        let head = word(types, 0).zip(word(types, 4));
        let (name, info) = head.context("a type is cut off")?;
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        names.push(if kind == FUNCTION { name } else { 0 });
        let rest = types.get(HEAD + tail(kind, members)?..);
        types = rest.context("a type is cut off")?;
    }
    Ok(names)
}

/// Bytes that follow the head of a type.
fn tail(kind: u32, members: usize) -> Result<usize> {
    Ok(match kind {
        // Pointers, forward declarations, other names and qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays, structures and unions, enumerations of both sizes, prototypes, sections.
        3 => 12,
        4 | 5 | 15 | 19 => 12 * members,
        6 | 13 => 8 * members,
        _ => bail!("unknown kind of type {kind}"),
    })
}

fn word(bytes: &[u8], position: usize) -> Option<u32> {
    let word = bytes.get(position..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let size = |bytes: usize| u32::try_from(bytes).unwrap();
        let header = [0x1_eb9f, 24, 0, size(4 * types.len())];
        let header = header.into_iter();
        let header = header.chain([size(4 * types.len()), size(strings.len())]);
        let words = header.chain(types.iter().copied());
        words
            .flat_map(u32::to_ne_bytes)
            .chain(strings.iter().copied())
            .collect()
    }

    /// A structure `a` of two members, then the function `go`.
    const TYPES: [u32; 12] = [1, 4 << 24 | 2, 16, 1, 0, 0, 1, 0, 64, 3, 12 << 24, 0];
    const STRINGS: &[u8] = b"\0a\0go\0";

    #[test]
    fn a_function_is_found_behind_a_type_with_members() {
        let btf = Btf::new(&bytes(&TYPES, STRINGS)).unwrap();
        assert_eq!(btf.function(2).unwrap(), "go");
        assert_eq!(btf.string(1).unwrap(), "a");
        for other in [0, 1, 3] {
            assert!(btf.function(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_name_is_as_in_the_source() {
        for (linked, name) in [
            (
                "scan_3C_lb_3A__3A_table_3A__3A_Table_3E_",
                "scan<lb::table::Table>",
            ),
            ("touch_partner", "touch_partner"),
            ("a_12_b_", "a_12_b_"),
            ("_", "_"),
            ("x_3", "x_3"),
        ] {
            assert_eq!(plain(linked), name);
        }
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        let whole = bytes(&TYPES, STRINGS);
        for length in 0..whole.len() {
            assert!(Btf::new(&whole[..length]).is_err(), "{length}");
        }
        let unheard_of = [0, 31 << 24, 0];
        assert!(Btf::new(&bytes(&unheard_of, b"\0")).is_err());
    }
}
