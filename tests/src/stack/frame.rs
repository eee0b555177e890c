//! The frame of one function: how far below the frame pointer it reaches.

use aya_obj::generated::bpf_insn;

/// The frame pointer.
const R10: usize = 10;

/// Bytes of a function's frame: the lowest address that it uses or derives from the frame pointer.
///
/// What registers hold is followed from one instruction to the next and not along branches: where a pointer into the
/// frame is made, its lowest address is known, and what the compiler derives from it later lies above.
pub(super) fn frame(body: &[bpf_insn]) -> u32 {
    let mut distances: [Option<i64>; 16] = [None; 16];
    distances[R10] = Some(0);
    let mut lowest = 0;
    for &one in body {
        let (to, from) = (usize::from(one.dst_reg()), usize::from(one.src_reg()));
        let reached = match Kind::of(one) {
            Kind::Load => {
                let reached = distances[from].map(|distance| distance + i64::from(one.off));
                distances[to] = None;
                reached
            }
            Kind::Store => distances[to].map(|distance| distance + i64::from(one.off)),
            Kind::Copy => {
                distances[to] = distances[from];
                None
            }
            Kind::Add => {
                distances[to] = distances[to].map(|distance| distance + i64::from(one.imm));
                distances[to]
            }
            Kind::Call => {
                distances[..6].fill(None);
                None
            }
            Kind::Other => {
                distances[to] = None;
                None
            }
            Kind::Jump => None,
        };
        lowest = lowest.min(reached.unwrap_or(0));
    }
    u32::try_from(-lowest).unwrap_or(u32::MAX)
}

/// What an instruction does to registers, as far as it matters here (`Documentation/bpf/standardization`).
enum Kind {
    /// From memory into the destination.
    Load,
    /// To memory at the destination.
    Store,
    /// One register to another.
    Copy,
    /// A constant to a register.
    Add,
    /// Of a helper or a function: the registers of arguments and of the result are lost.
    Call,
    Jump,
    /// Anything else that writes the destination.
    Other,
}

impl Kind {
    fn of(instruction: bpf_insn) -> Self {
        match instruction.code {
            0x85 => Self::Call,
            0xbf if instruction.off == 0 => Self::Copy,
            0x07 => Self::Add,
            // The class is in the lowest three bits.
            code => match code & 7 {
                1 => Self::Load,
                2 | 3 => Self::Store,
                5 | 6 => Self::Jump,
                _ => Self::Other,
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn instruction(code: u8, to: u8, from: u8, off: i16, imm: i32) -> bpf_insn {
        let registers = bpf_insn::new_bitfield_1(to, from);
        bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: registers,
            off,
            imm,
        }
    }

    pub(crate) fn exit() -> bpf_insn {
        instruction(0x95, 0, 0, 0, 0)
    }

    /// A word to `[base + off]`.
    pub(crate) fn store(base: u8, off: i16) -> bpf_insn {
        instruction(0x7b, base, 1, off, 0)
    }

    fn load(base: u8, off: i16) -> bpf_insn {
        instruction(0x79, 1, base, off, 0)
    }

    fn copy(to: u8, from: u8) -> bpf_insn {
        instruction(0xbf, to, from, 0, 0)
    }

    fn add(to: u8, imm: i32) -> bpf_insn {
        instruction(0x07, to, 0, 0, imm)
    }

    #[test]
    fn the_lowest_load_or_store_by_the_frame_pointer_is_the_frame() {
        assert_eq!(frame(&[exit()]), 0);
        assert_eq!(frame(&[store(10, -8), load(10, -24), store(10, -16)]), 24);
    }

    #[test]
    fn memory_that_is_handed_to_a_helper_counts_from_where_it_begins() {
        let helper = instruction(0x85, 0, 0, 0, 1);
        assert_eq!(frame(&[copy(2, 10), add(2, -72), helper]), 72);
    }

    #[test]
    fn a_copy_of_a_pointer_goes_on_pointing() {
        let code = [copy(2, 10), add(2, -8), copy(6, 2), store(6, -32)];
        assert_eq!(frame(&code), 40);
    }

    #[test]
    fn a_register_that_was_overwritten_points_into_the_frame_no_more() {
        let code = [copy(1, 10), load(1, -8), store(1, -400)];
        assert_eq!(frame(&code), 8);
        let helper = instruction(0x85, 0, 0, 0, 1);
        assert_eq!(frame(&[copy(1, 10), helper, store(1, -400)]), 0);
        let constant = instruction(0xb7, 3, 0, 0, 7);
        assert_eq!(frame(&[copy(3, 10), constant, store(3, -400)]), 0);
    }

    #[test]
    fn memory_elsewhere_is_no_frame() {
        assert_eq!(frame(&[store(6, -400), load(1, -8), add(4, -16)]), 0);
    }
}
