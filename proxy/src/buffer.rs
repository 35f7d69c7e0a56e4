//! Read buffers, lent by the worker and given back as soon as they are empty.
//!
//! An idle connection owns no buffer: ten thousand keep-alive clients cost ten thousand sockets and
//! not 320 MiB. Because the pool is last-in first-out, a busy worker keeps reading into the same
//! few buffers, which stay in the processor's cache. Storage is zeroed once, when it is made;
//! reading into it again needs no `unsafe` and no clearing.

use std::cell::RefCell;
use std::rc::Rc;

use switchback_config::defaults::READ_BYTES;

/// Buffers kept for reuse by one worker; more than this many busy at once is a burst.
const KEPT: usize = 256;

/// One worker's spare read buffers.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    spare: RefCell<Vec<Box<[u8]>>>,
}

impl BufferPool {
    fn take(&self) -> Box<[u8]> {
        self.spare
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice())
    }

    fn give_back(&self, storage: Box<[u8]>) {
        let mut spare = self.spare.borrow_mut();
        if storage.len() == READ_BYTES && spare.len() < KEPT {
            spare.push(storage);
        }
    }
}

/// Bytes read from one connection and not used yet.
///
/// Invariant: `start <= end <= storage.len()`; without storage both are 0.
#[derive(Debug)]
pub(crate) struct Buffer {
    pool: Rc<BufferPool>,
    storage: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer, which holds no memory.
    pub(crate) fn new(pool: &Rc<BufferPool>) -> Self {
        Self {
            pool: pool.clone(),
            storage: Box::default(),
            start: 0,
            end: 0,
        }
    }

    /// What has been read and not been consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    pub(crate) const fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len(), "more consumed than was read");
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into. Moves unread bytes to the front when the tail is used up, and grows up
    /// to `capacity_max` bytes; empty only when so many bytes wait unread.
    pub(crate) fn space(&mut self, capacity_max: usize) -> &mut [u8] {
        if self.storage.is_empty() {
            self.storage = self.pool.take();
        }
        if self.end == self.storage.len() && self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.storage.len() && self.end < capacity_max {
            let mut larger = vec![0; (self.end * 2).min(capacity_max)].into_boxed_slice();
            larger[..self.end].copy_from_slice(&self.storage);
            self.pool
                .give_back(std::mem::replace(&mut self.storage, larger));
        }
        &mut self.storage[self.end..]
    }

    /// Tells that `count` bytes were read into [`Buffer::space`].
    pub(crate) fn filled_more(&mut self, count: usize) {
        debug_assert!(
            self.end + count <= self.storage.len(),
            "more read than there was room"
        );
        self.end += count;
    }

    /// Gives the memory back if nothing is left to use.
    pub(crate) fn release_if_empty(&mut self) {
        if self.is_empty() && !self.storage.is_empty() {
            self.pool.give_back(std::mem::take(&mut self.storage));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.storage.is_empty() {
            self.pool.give_back(std::mem::take(&mut self.storage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &mut Buffer, bytes: &[u8], capacity_max: usize) -> usize {
        let space = buffer.space(capacity_max);
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        buffer.filled_more(count);
        count
    }

    #[test]
    fn empty_buffer_gives_its_memory_back() {
        let pool = Rc::new(BufferPool::default());
        let mut buffer = Buffer::new(&pool);
        assert_eq!(read(&mut buffer, b"hello", READ_BYTES), 5);
        buffer.consume(2);
        buffer.release_if_empty();
        assert_eq!(buffer.filled(), b"llo");
        assert_eq!(pool.spare.borrow().len(), 0);
        buffer.consume(3);
        buffer.release_if_empty();
        assert_eq!(pool.spare.borrow().len(), 1);
    }

    #[test]
    fn full_buffer_moves_then_grows_up_to_its_bound() {
        let pool = Rc::new(BufferPool::default());
        let mut buffer = Buffer::new(&pool);
        let bytes = vec![7; 4 * READ_BYTES];
        assert_eq!(read(&mut buffer, &bytes, READ_BYTES), READ_BYTES);
        assert_eq!(read(&mut buffer, &bytes, READ_BYTES), 0);
        buffer.consume(10);
        assert_eq!(read(&mut buffer, &bytes, READ_BYTES), 10);
        assert_eq!(read(&mut buffer, &bytes, 3 * READ_BYTES), READ_BYTES);
        assert_eq!(read(&mut buffer, &bytes, 3 * READ_BYTES), READ_BYTES);
        assert_eq!(read(&mut buffer, &bytes, 3 * READ_BYTES), 0);
        assert_eq!(buffer.len(), 3 * READ_BYTES);
        drop(buffer);
        assert_eq!(
            pool.spare.borrow().len(),
            1,
            "only buffers of the usual size are kept"
        );
    }
}
