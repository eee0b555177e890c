//! Arrays that the agent maps into its memory, read and written word by word. Beside this file the
//! agent has unsafe code in [`super::syscall`] and `nic/ethtool.rs`, and one call of it in [`super::events`].
//!
//! A packet may read a word while it is written: each access is one aligned 64-bit load or store.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
    ptr,
    sync::Arc,
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::io_error;

/// A `BPF_MAP_TYPE_ARRAY` with `BPF_F_MMAPABLE`, or a table within its only value.
#[derive(Debug)]
pub(super) struct SharedArray {
    memory: Arc<MmapRaw>,
    /// Words of the memory before the first row.
    first: usize,
    rows: u32,
    words_per_row: usize,
    writable: bool,
}

impl SharedArray {
    /// Maps a pinned array.
    ///
    /// # Errors
    /// The pin can't be opened, or is of another kind.
    pub(super) fn pinned(path: &Path) -> io::Result<Self> {
        Self::map_with(&open(path)?, true, MmapOptions::map_raw)
    }

    /// Maps a pinned array for reading alone: no mistake of ours can change it.
    ///
    /// # Errors
    /// As for [`SharedArray::pinned`].
    pub(super) fn pinned_read_only(path: &Path) -> io::Result<Self> {
        Self::read_only(&open(path)?)
    }

    /// Maps an array for reading alone.
    ///
    /// # Errors
    /// It is of another kind.
    pub(super) fn read_only(array: &MapData) -> io::Result<Self> {
        Self::map_with(array, false, MmapOptions::map_raw_read_only)
    }

    /// An array of this process alone, all zeroes, with one value of so many bytes.
    #[cfg(test)]
    pub(super) fn of_our_own(bytes: usize) -> Self {
        Self {
            memory: Arc::new(memmap2::MmapMut::map_anon(bytes).unwrap().into()),
            first: 0,
            rows: 1,
            words_per_row: bytes.div_ceil(size_of::<u64>()),
            writable: true,
        }
    }

    fn map_with(
        array: &MapData,
        writable: bool,
        map: impl FnOnce(&MmapOptions, RawFd) -> io::Result<MmapRaw>,
    ) -> io::Result<Self> {
        let info = array.info().map_err(io::Error::other)?;
        // The kernel places values eight bytes apart or a multiple of it.
        let words_per_row = (info.value_size() as usize).div_ceil(size_of::<u64>());
        let rows = info.max_entries();
        let length = rows as usize * words_per_row * size_of::<u64>();
        let memory = map(
            MmapOptions::new().len(length),
            array.fd().as_fd().as_raw_fd(),
        )?;
        Ok(Self {
            memory: Arc::new(memory),
            first: 0,
            rows,
            words_per_row,
            writable,
        })
    }

    /// A table within the array's only value, `offset` bytes from its start.
    ///
    /// # Errors
    /// It does not lie within the value, or its rows are not made of whole words.
    pub(super) fn table(&self, offset: usize, rows: u32, row_bytes: usize) -> io::Result<Self> {
        const WORD: usize = size_of::<u64>();
        let words = rows as usize * (row_bytes / WORD);
        let aligned = offset.is_multiple_of(WORD) && row_bytes.is_multiple_of(WORD);
        if self.rows != 1 || !aligned || offset / WORD + words > self.words_per_row {
            return Err(io::Error::other(format!(
                "a table of {rows} rows of {row_bytes} bytes is not at byte {offset} of {}",
                self.words_per_row * WORD
            )));
        }
        Ok(Self {
            memory: Arc::clone(&self.memory),
            first: offset / WORD,
            rows,
            words_per_row: row_bytes / WORD,
            writable: self.writable,
        })
    }

    /// Rows of the array.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.words_per_row * size_of::<u64>()
    }

    /// A word of a row; 0 where there is no such word.
    pub(super) fn load(&self, row: u32, word: usize) -> u64 {
        match self.place(row, word) {
            // SAFETY: `place` lies within the mapping and is aligned; the mapping lives as long as `self`.
            Some(place) => unsafe { ptr::read_volatile(place) },
            None => 0,
        }
    }

    /// Publishes a word of a row.
    ///
    /// # Errors
    /// There is no such word.
    pub(super) fn store(&self, row: u32, word: usize, value: u64) -> io::Result<()> {
        let place = self.place(row, word).filter(|_| self.writable);
        let place = place.ok_or_else(|| io::Error::other(format!("row {row} can't be written")))?;
        // SAFETY: `place` lies within the mapping and is aligned; the mapping is writable, for nothing is stored into one
        // that was made for reading, and lives as long as `self`.
        unsafe { ptr::write_volatile(place, value) };
        Ok(())
    }

    /// All words of a row.
    pub(super) fn row<const WORDS: usize>(&self, row: u32) -> [u64; WORDS] {
        std::array::from_fn(|word| self.load(row, word))
    }

    /// Publishes the words of a row one after the other, the last first, so that word 0 says that the rest is there.
    ///
    /// # Errors
    /// There is no such row.
    pub(super) fn store_row<const WORDS: usize>(
        &self,
        row: u32,
        words: [u64; WORDS],
    ) -> io::Result<()> {
        for (word, value) in words.into_iter().enumerate().rev() {
            if self.load(row, word) != value {
                self.store(row, word, value)?;
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
    fn place(&self, row: u32, word: usize) -> Option<*mut u64> {
        let within = row < self.rows && word < self.words_per_row;
        let index = self.first + row as usize * self.words_per_row + word;
        within.then(|| self.memory.as_mut_ptr().cast::<u64>().wrapping_add(index))
    }
}

fn open(path: &Path) -> io::Result<MapData> {
    MapData::from_pin(path).map_err(|error| io_error(&error))
}
