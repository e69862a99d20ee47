//! Memory: the C library's allocator, but for blocks of one size.
//!
//! hyper holds two buffers of 8,192 bytes for each HTTP/1.1 connection. musl has no slot of that size: it takes one of
//! 10,912 bytes and writes a mark at its end, so that each buffer costs three pages although an idle connection has used
//! the first few hundred bytes. With thousands of streams that nothing happens on, this is most of the agent's memory.
//! Here such blocks come from regions: they lie side by side, nothing is written behind them, and a page that nobody
//! has written costs nothing (mmap(2)).
//!
//! A region that nobody uses is given back, but for one. A block knows its region by its address.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::{self, NonNull},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The size in question.
const BLOCK_BYTES: usize = 8192;

/// Regions are as large as their alignment.
const REGION_BYTES: usize = 256 * 1024;

/// The first block's place holds the region's own data.
const BLOCKS: usize = REGION_BYTES / BLOCK_BYTES - 1;

/// The allocator of the program.
#[derive(Debug)]
pub struct Allocator;

/// The start of a region.
struct Region {
    /// Neighbours in the list of regions with room.
    previous: Option<NonNull<Region>>,
    next: Option<NonNull<Region>>,
    /// Blocks that came back, each beginning with the address of the next.
    free: Option<NonNull<Free>>,
    /// Blocks that were never handed out begin here, counted from 0.
    fresh: usize,
    used: usize,
}

/// The start of a block that nobody uses.
struct Free {
    next: Option<NonNull<Free>>,
}

/// All regions with room.
struct Regions {
    first: Option<NonNull<Region>>,
}

// SAFETY: regions belong to nobody but the one value behind `REGIONS`, which is used under its lock only.
unsafe impl Send for Regions {}

static REGIONS: Mutex<Regions> = Mutex::new(Regions { first: None });

fn is_block(layout: Layout) -> bool {
    layout.size() == BLOCK_BYTES && layout.align() <= 16
}

// SAFETY: blocks are disjoint pieces of private mappings, large and aligned enough, and stay mapped while they are used.
// Which side a piece of memory is from depends on its layout alone, which is the same for its whole life. Everything else
// is the C library's allocator.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_block(layout) {
            return regions().take();
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_block(layout) {
            let block = regions().take();
            if !block.is_null() {
                // SAFETY: the block is ours and that long.
                unsafe { ptr::write_bytes(block, 0, BLOCK_BYTES) };
            }
            return block;
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if is_block(layout) {
            // SAFETY: the caller gives back what `alloc` has given for this layout.
            return unsafe { regions().give_back(memory) };
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size is good for this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if !is_block(layout) && !is_block(new) {
            // SAFETY: the caller's promises are the same.
            return unsafe { System.realloc(memory, layout, new_size) };
        }
        // SAFETY: both are valid for their layouts, and the smaller size is copied between different pieces of memory.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(memory, moved, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

fn regions() -> MutexGuard<'static, Regions> {
    // Nothing panics while the lock is held.
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Regions {
    /// A block; null where the system gives no memory.
    fn take(&mut self) -> *mut u8 {
        let Some(region) = self.first.or_else(|| self.map()) else { return ptr::null_mut() };
        // SAFETY: regions in the list are mapped, and this value is their only user.
        unsafe {
            let data = &mut *region.as_ptr();
            data.used += 1;
            let block = match data.free {
                Some(free) => {
                    data.free = (*free.as_ptr()).next;
                    free.as_ptr().cast::<u8>()
                }
                None => {
                    data.fresh += 1;
                    // Inside of the region: one with neither free nor fresh blocks is not in the list.
                    region.as_ptr().cast::<u8>().add(data.fresh * BLOCK_BYTES)
                }
            };
            if data.used == BLOCKS {
                self.unlink(region);
            }
            block
        }
    }

    /// # Safety
    /// The block was [taken](Regions::take) and is not used any more.
    unsafe fn give_back(&mut self, block: *mut u8) {
        let start = block.map_addr(|address| address & !(REGION_BYTES - 1)).cast::<Region>();
        // SAFETY: a region begins at a multiple of its size, and is mapped as long as one of its blocks is used. The block
        // is large and aligned enough for a pointer, and never null.
        unsafe {
            let (region, free) = (NonNull::new_unchecked(start), NonNull::new_unchecked(block.cast::<Free>()));
            let data = &mut *region.as_ptr();
            free.write(Free { next: data.free });
            data.free = Some(free);
            let was_full = data.used == BLOCKS;
            data.used -= 1;
            let unused = data.used == 0;
            if was_full {
                self.link(region);
            }
            // The last one with room stays, for the next connection.
            if unused && self.first.is_some_and(|first| (*first.as_ptr()).next.is_some()) {
                self.unlink(region);
                libc::munmap(region.as_ptr().cast(), REGION_BYTES);
            }
        }
    }

    /// A new region in the list.
    fn map(&mut self) -> Option<NonNull<Region>> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping, twice as large as needed, so that an aligned region is in it; what lies before and
        // behind is unmapped. A zeroed region would be one without neighbours and blocks, but it is written nevertheless.
        unsafe {
            let mapping = libc::mmap(ptr::null_mut(), 2 * REGION_BYTES, protection, flags, -1, 0);
            if mapping == libc::MAP_FAILED {
                return None;
            }
            let before = mapping.addr().next_multiple_of(REGION_BYTES) - mapping.addr();
            let start = mapping.byte_add(before);
            if before > 0 {
                libc::munmap(mapping, before);
            }
            if before < REGION_BYTES {
                libc::munmap(start.byte_add(REGION_BYTES), REGION_BYTES - before);
            }
            let region = NonNull::new(start.cast::<Region>())?;
            region.write(Region { previous: None, next: None, free: None, fresh: 0, used: 0 });
            self.link(region);
            Some(region)
        }
    }

    /// # Safety
    /// The region is mapped and not in the list.
    unsafe fn link(&mut self, region: NonNull<Region>) {
        // SAFETY: all regions in the list are mapped.
        unsafe {
            (*region.as_ptr()).previous = None;
            (*region.as_ptr()).next = self.first;
            if let Some(first) = self.first {
                (*first.as_ptr()).previous = Some(region);
            }
        }
        self.first = Some(region);
    }

    /// # Safety
    /// The region is in the list.
    unsafe fn unlink(&mut self, region: NonNull<Region>) {
        // SAFETY: all regions in the list are mapped.
        unsafe {
            let Region { previous, next, .. } = *region.as_ptr();
            match previous {
                Some(previous) => (*previous.as_ptr()).next = next,
                None => self.first = next,
            }
            if let Some(next) = next {
                (*next.as_ptr()).previous = previous;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "any byte will do")]
mod tests {
    use std::{collections::BTreeMap, thread};

    use super::*;

    fn filled(byte: u8) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        block.resize(BLOCK_BYTES, byte);
        assert_eq!(block.capacity(), BLOCK_BYTES);
        block
    }

    #[test]
    fn blocks_do_not_overlap_and_keep_what_is_in_them() {
        let mut blocks = BTreeMap::new();
        // Several regions, with holes, filled again.
        for round in 0..4_u32 {
            for number in (round..300).step_by(round as usize + 1) {
                blocks.remove(&number);
            }
            for number in 0..300_u32 {
                let byte = (number % 251) as u8;
                let block = blocks.entry(number).or_insert_with(|| filled(byte));
                assert!(block.iter().all(|found| *found == byte), "{number}");
            }
        }
        let mut places: Vec<_> = blocks.values().map(|block| block.as_ptr().addr()).collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= BLOCK_BYTES));
        assert!(places.iter().all(|place| place % REGION_BYTES >= BLOCK_BYTES));
    }

    #[test]
    fn a_buffer_grows_into_the_size_and_out_of_it() {
        let mut buffer: Vec<u8> = (0..100).collect();
        for size in [BLOCK_BYTES, 3 * BLOCK_BYTES, BLOCK_BYTES, 100] {
            buffer.reserve_exact(size.saturating_sub(buffer.len()));
            buffer.shrink_to(size);
            assert_eq!(buffer.capacity(), size);
            assert!(buffer.iter().copied().eq(0..100));
        }
        assert!(vec![0_u8; BLOCK_BYTES].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn threads_give_back_what_others_took() {
        let taken: Vec<Vec<u8>> = (0..500_u32).map(|number| filled(number as u8)).collect();
        thread::scope(|scope| {
            for part in taken.chunks(125) {
                let part = part.to_vec();
                scope.spawn(move || drop(part));
            }
        });
        for (number, block) in (0..500_u32).zip(taken) {
            assert!(block.iter().all(|byte| *byte == number as u8));
        }
    }
}
