//! The allocator: the C library's, with a small store of the blocks that moving output needs.
//!
//! musl gives blocks of some pages back to the system as soon as they are free. Each chunk of output would then cost
//! several system calls and a page fault for every four kilobytes, a third of all work on it. So a few free blocks of the
//! sizes from `SMALLEST_BYTES` to `LARGEST_BYTES` wait here for the next chunk. Blocks of these sizes come straight from
//! the kernel: a few that are kept would hold on to whole groups of the C library's. Everything else is left to the C
//! library, which keeps an idle agent small.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ffi::c_void,
    ptr,
    sync::Mutex,
};

/// The sizes of blocks, in bytes. A larger step wastes address space and no memory: what is not used is not touched.
const SIZES: [usize; 7] = [8 << 10, 12 << 10, 16 << 10, 24 << 10, 32 << 10, 48 << 10, LARGEST_BYTES];

/// From this size on it is worth the lock.
const SMALLEST_BYTES: usize = 6 << 10;

/// A chunk of output in base64 with its envelope fits.
const LARGEST_BYTES: usize = 64 << 10;

/// How much of each size is kept, enough for the chunks that one connection has on the way.
const KEPT_BYTES: usize = 256 << 10;

/// Blocks are whole pages. Hardly anything asks for more than this.
const ALIGNMENT: usize = 16;

/// The allocator of the whole process.
#[derive(Debug)]
pub struct Allocator {
    store: Mutex<Store>,
}

/// Free blocks by size, each a list through the first word of its blocks.
#[derive(Debug)]
struct Store {
    heads: [*mut Free; SIZES.len()],
    counts: [usize; SIZES.len()],
}

/// A free block.
struct Free {
    next: *mut Free,
}

// SAFETY: the blocks belong to the store alone, whichever thread looks at it.
unsafe impl Send for Store {}

impl Allocator {
    /// With an empty store.
    pub const fn new() -> Self {
        Self { store: Mutex::new(Store { heads: [ptr::null_mut(); SIZES.len()], counts: [0; SIZES.len()] }) }
    }

    /// A block of this class, if there is one. Whoever would have to wait goes to the kernel.
    fn take(&self, class: usize) -> Option<*mut u8> {
        let mut store = self.store.try_lock().ok()?;
        let head = store.heads.get_mut(class)?;
        let block = *head;
        if block.is_null() {
            return None;
        }
        // SAFETY: blocks in the list are free, and were linked by `put`.
        *head = unsafe { (*block).next };
        if let Some(count) = store.counts.get_mut(class) {
            *count -= 1;
        }
        Some(block.cast())
    }

    /// Keeps a block and says whether it did.
    ///
    /// # Safety
    /// The block has the size of the class, comes from [`map`], and nobody uses it.
    unsafe fn put(&self, class: usize, block: *mut u8) -> bool {
        let Ok(mut store) = self.store.try_lock() else { return false };
        let Store { heads, counts } = &mut *store;
        let (Some(head), Some(count), Some(size)) = (heads.get_mut(class), counts.get_mut(class), SIZES.get(class))
        else {
            return false;
        };
        if (*count + 1) * size > KEPT_BYTES {
            return false;
        }
        // SAFETY: the block is free, aligned and larger than one word.
        unsafe { block.cast::<Free>().write(Free { next: *head }) };
        *head = block.cast();
        *count += 1;
        true
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

/// Which list a block of this layout belongs to and how large it is; it depends on nothing but the layout.
fn class_of(layout: Layout) -> Option<(usize, usize)> {
    if layout.size() <= SMALLEST_BYTES || layout.size() > LARGEST_BYTES || layout.align() > ALIGNMENT {
        return None;
    }
    SIZES.into_iter().enumerate().find(|(_, size)| layout.size() <= *size)
}

/// A new block of zeros, or null.
fn map(size: usize) -> *mut u8 {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice touches nobody.
    let block = unsafe { libc::mmap(ptr::null_mut::<c_void>(), size, access, kind, -1, 0) };
    if block == libc::MAP_FAILED { ptr::null_mut() } else { block.cast() }
}

// SAFETY: a block of a class is a mapping of the class's size, and `class_of` finds the same class on both ways. It is
// either in use or in the store. Everything else goes to and from the C library unchanged. Nothing here panics.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class_of(layout) {
            Some((class, size)) => self.take(class).unwrap_or_else(|| map(size)),
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((class, size)) = class_of(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        };
        match self.take(class) {
            Some(used) => {
                // SAFETY: blocks of the class are at least as large as the layout.
                unsafe { used.write_bytes(0, layout.size()) };
                used
            }
            None => map(size),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match class_of(layout) {
            // SAFETY: the caller gives the block up, and it is a mapping of this size.
            Some((class, size)) => unsafe {
                if !self.put(class, pointer) {
                    libc::munmap(pointer.cast(), size);
                }
            },
            // SAFETY: the caller's promise.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size fits the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class_of(layout), class_of(wanted)) {
            // SAFETY: the caller's promise.
            (None, None) => unsafe { System.realloc(pointer, layout, new_size) },
            (old, new) if old == new => pointer,
            // SAFETY: both blocks are at least as large as what is copied, and do not overlap.
            _ => unsafe {
                let moved = self.alloc(wanted);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(pointer, moved, layout.size().min(new_size));
                    self.dealloc(pointer, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed expectation is the test's failure")]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 1).unwrap()
    }

    fn bytes(allocator: &Allocator, size: usize, value: u8) -> *mut u8 {
        // SAFETY: the size is not zero, and the block is as large.
        unsafe {
            let block = allocator.alloc(layout(size));
            assert!(!block.is_null());
            block.write_bytes(value, size);
            block
        }
    }

    #[test]
    fn a_freed_block_serves_the_next_request_of_its_size_and_zeroed_means_zeroed() {
        let allocator = Allocator::new();
        let first = bytes(&allocator, 43_000, 7);
        // SAFETY: each block is freed once, with its layout, and read only within it.
        unsafe {
            allocator.dealloc(first, layout(43_000));
            let second = allocator.alloc_zeroed(layout(48 << 10));
            assert_eq!(second, first);
            assert!(std::slice::from_raw_parts(second, 48 << 10).iter().all(|byte| *byte == 0));
            allocator.dealloc(second, layout(48 << 10));
        }
    }

    #[test]
    fn growing_and_shrinking_across_all_sizes_keeps_the_content() {
        let allocator = Allocator::new();
        let sizes = [100, 6 << 10, (6 << 10) + 1, 8 << 10, 9_000, 64 << 10, (64 << 10) + 1, 1 << 20, 33_000, 32_000, 5];
        let mut block = bytes(&allocator, sizes[0], 42);
        let mut intact = sizes[0];
        for pair in sizes.windows(2) {
            // SAFETY: the block has the size of the last round; only what was written is read.
            unsafe {
                block = allocator.realloc(block, layout(pair[0]), pair[1]);
                intact = intact.min(pair[1]);
                assert!(std::slice::from_raw_parts(block, intact).iter().all(|byte| *byte == 42), "{pair:?}");
            }
        }
        // SAFETY: as above.
        unsafe { allocator.dealloc(block, layout(5)) };
    }

    #[test]
    fn what_is_kept_is_limited() {
        let allocator = Allocator::new();
        let blocks: Vec<_> = (0..100).map(|_| bytes(&allocator, 32 << 10, 1)).collect();
        for block in blocks {
            // SAFETY: each is freed once.
            unsafe { allocator.dealloc(block, layout(32 << 10)) };
        }
        assert_eq!(allocator.store.lock().unwrap().counts, [0, 0, 0, 0, 8, 0, 0]);
    }

    #[test]
    fn threads_never_share_a_block() {
        let allocator = Allocator::new();
        std::thread::scope(|scope| {
            for value in 0..4 {
                let allocator = &allocator;
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let size = (7 << 10) + (round % 50) * 1_000;
                        let block = bytes(allocator, size, value);
                        // SAFETY: the block is ours, as large as asked for, and freed once.
                        unsafe {
                            assert!(std::slice::from_raw_parts(block, size).iter().all(|byte| *byte == value));
                            allocator.dealloc(block, layout(size));
                        }
                    }
                });
            }
        });
    }
}
