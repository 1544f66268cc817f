//! The memory in which the lines of all sessions are gathered until they are appended.
//!
//! Lines are written one behind the other, whosever they are, into slabs of one size; a session keeps only where its own
//! stand ([`Lines`]). So a session that gathers owns no memory that grows, memory is written in the order of its addresses,
//! and a slab is used again as soon as everything in it was appended, which is soon, because sessions are due in the order
//! in which they began to gather. A line stands in one piece.
//!
//! Knows no session and no file. Bounds: whoever writes looks at [`Slabs::bytes_in_use`] and appends until it is small
//! enough; empty slabs that nobody needed for six calls of [`Slabs::shrink`] are given back there. Not counted is
//! what refers to the lines, 56 bytes for a session that gathers and 24 for each further run of them: next to nothing for lines
//! of KBs, as much again for lines of 24 bytes.

use std::io::IoSlice;
use std::ops::Deref;

use memmap2::MmapMut;

/// Bytes of a slab: many lines (3.75 KB on average), and few bytes beside what one old line holds in use. Fifty busy
/// connections leave the ends of their reads in as many slabs: these should stay in the cache.
const SLAB_BYTES: usize = 64 * 1024;

/// Rounds of [`Slabs::shrink`], one a second, for which an empty slab is kept: sessions that began to gather together are
/// appended together, once in each `dump.flush_interval_ms`, and the kernel takes its time to map memory anew.
const ROUNDS_KEPT: usize = 6;

/// Where gathered lines stand. It belongs to the [`Slabs`] that filled it, and must go back there
/// ([`Slabs::release`]), or what it refers to is never used again. Of a session that gathers nothing it is 8 bytes.
#[derive(Debug, Default)]
pub struct Lines(Option<Box<Places>>);

/// What [`Lines`] are when there are any.
#[derive(Debug, Default)]
struct Places {
    /// Empty when there is nothing.
    first: Piece,
    /// Further ones, which few have.
    more: Option<Box<Pieces>>,
    bytes: usize,
    /// From where to where; empty when nothing is noted.
    noted: (usize, usize),
}

#[derive(Debug, Default)]
struct Pieces(Vec<Piece>);

impl Places {
    fn pieces(&self) -> impl DoubleEndedIterator<Item = Piece> {
        std::iter::once(self.first).filter(|first| first.bytes() > 0).chain(self.more().iter().copied())
    }

    fn more(&self) -> &[Piece] {
        self.more.as_ref().map_or(&[], |more| &more.0)
    }

    fn push(&mut self, piece: Piece) {
        self.bytes += piece.bytes();
        if self.first.bytes() == 0 {
            self.first = piece;
            return;
        }
        let last = self.more.as_mut().and_then(|more| more.0.last_mut()).unwrap_or(&mut self.first);
        if last.slab == piece.slab && last.end == piece.start {
            last.end = piece.end;
        } else {
            self.more.get_or_insert_default().0.push(piece);
        }
    }

    fn pop(&mut self) -> Option<Piece> {
        let more = self.more.as_mut().and_then(|more| more.0.pop());
        let last = more.or_else(|| Some(std::mem::take(&mut self.first)))?;
        self.bytes -= last.bytes();
        Some(last).filter(|last| last.bytes() > 0)
    }
}

/// Text in one slab.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    slab: usize,
    start: usize,
    end: usize,
}

impl Piece {
    fn bytes(self) -> usize {
        self.end - self.start
    }
}

impl Lines {
    /// How much it is, with all `\n`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |places| places.bytes)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// In how many pieces they stand: as many parts has the write that appends them.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.0.as_ref().map_or(0, |places| usize::from(places.first.bytes() > 0) + places.more().len())
    }

    /// Notes a place in them, from where to where, until they are released.
    pub fn note(&mut self, place: (usize, usize)) {
        self.0.get_or_insert_default().noted = place;
    }

    /// The place that was noted last.
    #[must_use]
    pub fn noted(&self) -> Option<(usize, usize)> {
        self.0.as_ref().map(|places| places.noted).filter(|(start, end)| start < end)
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = Piece> {
        self.0.iter().flat_map(|places| places.pieces())
    }

    fn add(&mut self, piece: Piece) {
        self.0.get_or_insert_default().push(piece);
    }

    /// Takes all of `other` behind its own. What is noted in `other` is lost if it has lines of its own already.
    pub fn take_over(&mut self, other: Self) {
        let Some(other) = other.0 else { return };
        match &mut self.0 {
            Some(places) => other.pieces().for_each(|piece| places.push(piece)),
            None => self.0 = Some(other),
        }
    }
}

/// What a slab is made of. Mapped memory goes back to the system as soon as it is dropped, whatever was allocated since.
#[derive(Debug, Default)]
enum Memory {
    #[default]
    None,
    Mapped(MmapMut),
    Heap(Vec<u8>),
}

impl Memory {
    /// For a slab; mapped if the system allows it.
    fn slab() -> Self {
        MmapMut::map_anon(SLAB_BYTES).map_or_else(|_| Self::Heap(vec![0; SLAB_BYTES]), Self::Mapped)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::None => &mut [],
            Self::Mapped(memory) => memory,
            Self::Heap(memory) => memory,
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Mapped(memory) => memory,
            Self::Heap(memory) => memory,
        }
    }
}

#[derive(Debug, Default)]
struct Slab {
    memory: Memory,
    /// Bytes that are written.
    filled: usize,
    /// Bytes that somebody's lines refer to.
    live: usize,
    /// Bytes that count as in use.
    counted: usize,
}

impl Slab {
    /// Lets `write` fill the next `room` bytes; what it filled, from where to where.
    fn write(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<(usize, usize)> {
        let start = self.filled;
        let space = self.memory.bytes_mut().get_mut(start..start + room)?;
        let end = start + write(space)?.min(room);
        self.live += end - start;
        self.filled = end;
        Some((start, end))
    }
}

/// All slabs.
#[derive(Debug, Default)]
pub struct Slabs {
    /// By number.
    slabs: Vec<Slab>,
    /// Number of the one that is being filled; at first there is none.
    at: Option<usize>,
    /// Numbers of those with memory in which nothing stands, the one used last on top.
    free: Vec<usize>,
    /// So many at the bottom of `free` were not needed since the last shrink, and in the rounds before it.
    untouched: [usize; ROUNDS_KEPT],
    /// Numbers without memory.
    vacant: Vec<usize>,
    in_use: usize,
    /// Where a line is put together before its length is known.
    draft: Vec<u8>,
}

impl Slabs {
    /// Memory that is held for lines, in bytes; without what was set aside.
    #[must_use]
    pub fn bytes_in_use(&self) -> usize {
        self.in_use
    }

    /// Lines that somebody refers to, in bytes.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.slabs.iter().map(|slab| slab.live).sum()
    }

    /// Adds to `lines` what `write` puts into the empty buffer that it is given.
    pub fn write<R>(&mut self, lines: &mut Lines, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut draft = std::mem::take(&mut self.draft);
        draft.clear();
        let result = write(&mut draft);
        self.write_within(lines, draft.len(), |space| {
            space.copy_from_slice(&draft);
            Some(draft.len())
        });
        if draft.capacity() <= SLAB_BYTES {
            self.draft = draft;
        }
        result
    }

    /// Lets `write` put a line into the front of `room` bytes and say how long it is, and adds that to `lines`; whether it
    /// wrote one. Nothing is copied.
    pub fn write_within(
        &mut self,
        lines: &mut Lines,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        let number = self.place_for(room);
        let written = self.slabs.get_mut(number).and_then(|slab| slab.write(room, write));
        match written {
            Some((start, end)) if end > start => lines.add(Piece { slab: number, start, end }),
            Some(_) | None => self.settle(number),
        }
        written.is_some()
    }

    /// The slab that has room for so much: the one that is being filled, or the next. What is larger than a slab has
    /// memory of its own.
    fn place_for(&mut self, room: usize) -> usize {
        if room > SLAB_BYTES {
            self.in_use += room;
            return self.put(Slab { memory: Memory::Heap(vec![0; room]), counted: room, ..Slab::default() });
        }
        let has_room = |slab: &Slab| slab.memory.len() - slab.filled >= room;
        if let Some(number) = self.at
            && self.slabs.get(number).is_some_and(has_room)
        {
            return number;
        }
        let next = self.take_free();
        if let Some(full) = self.at.replace(next) {
            self.settle(full);
        }
        next
    }

    /// The number of an empty slab, which is in use from now on.
    fn take_free(&mut self) -> usize {
        self.in_use += SLAB_BYTES;
        let Some(number) = self.free.pop() else {
            return self.put(Slab { memory: Memory::slab(), counted: SLAB_BYTES, ..Slab::default() });
        };
        let [since_the_last, ..] = &mut self.untouched;
        *since_the_last = self.free.len().min(*since_the_last);
        if let Some(slab) = self.slabs.get_mut(number) {
            slab.counted = SLAB_BYTES;
        }
        number
    }

    /// Gives a slab a number.
    fn put(&mut self, slab: Slab) -> usize {
        let number = self.vacant.pop().unwrap_or(self.slabs.len());
        match self.slabs.get_mut(number) {
            Some(place) => *place = slab,
            None => self.slabs.push(slab),
        }
        number
    }

    /// The text of `lines`, in parts.
    #[must_use]
    pub fn slices<'a>(&'a self, lines: &Lines) -> Vec<IoSlice<'a>> {
        lines.all().map(|piece| IoSlice::new(self.piece(piece))).collect()
    }

    /// The text of `lines`, copied together.
    #[must_use]
    pub fn copy(&self, lines: &Lines) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.bytes());
        for piece in lines.all() {
            text.extend_from_slice(self.piece(piece));
        }
        text
    }

    fn piece(&self, piece: Piece) -> &[u8] {
        let slab = self.slabs.get(piece.slab);
        slab.and_then(|slab| slab.memory.get(piece.start..piece.end)).unwrap_or_default()
    }

    /// The text between two places in `lines` that were written at once, as a line is; else nothing. It is found from the
    /// end on.
    #[must_use]
    pub fn slice(&self, lines: &Lines, start: usize, end: usize) -> &[u8] {
        let mut behind = lines.bytes();
        for piece in lines.all().rev() {
            let before = behind - piece.bytes();
            if start >= before {
                let text = self.piece(piece);
                return text.get(start - before..end.saturating_sub(before)).unwrap_or_default();
            }
            behind = before;
        }
        &[]
    }

    /// Takes back what stands in `lines` from `start` on.
    pub fn truncate(&mut self, lines: &mut Lines, start: usize) {
        let Some(places) = &mut lines.0 else { return };
        while places.bytes > start
            && let Some(mut last) = places.pop()
        {
            let (end, rest) = (last.end, start.saturating_sub(places.bytes));
            let taken = last.bytes() - rest;
            last.end -= taken;
            if rest > 0 {
                places.push(last);
            }
            if let Some(slab) = self.slabs.get_mut(last.slab).filter(|slab| slab.filled == end) {
                slab.filled = last.end;
            }
            self.let_go(last.slab, taken);
        }
        if places.bytes == 0 {
            lines.0 = None;
        }
    }

    /// Forgets lines, which were appended or are given up, and says how many bytes they were.
    pub fn release(&mut self, lines: &mut Lines) -> usize {
        let Some(places) = lines.0.take() else { return 0 };
        for piece in places.pieces() {
            self.let_go(piece.slab, piece.bytes());
        }
        places.bytes
    }

    fn let_go(&mut self, number: usize, bytes: usize) {
        if let Some(slab) = self.slabs.get_mut(number) {
            slab.live -= bytes;
            self.settle(number);
        }
    }

    /// If nothing stands in a slab any more, it is filled from its front again. One that is not being filled is out of use,
    /// and its memory is kept if it is of the usual size.
    fn settle(&mut self, number: usize) {
        let is_filled_now = self.at == Some(number);
        let Some(slab) = self.slabs.get_mut(number).filter(|slab| slab.live == 0) else { return };
        slab.filled = 0;
        if is_filled_now {
            return;
        }
        self.in_use -= std::mem::take(&mut slab.counted);
        if slab.memory.len() == SLAB_BYTES {
            self.free.push(number);
        } else {
            slab.memory = Memory::None;
            self.vacant.push(number);
        }
    }

    /// Moves lines that will stay for long to memory of their own, so that they hold nothing else in use.
    pub fn set_aside(&mut self, lines: &mut Lines) {
        if lines.is_empty() {
            return;
        }
        let (text, noted) = (self.copy(lines), lines.noted());
        let bytes = self.release(lines);
        let slab = self.put(Slab { memory: Memory::Heap(text), filled: bytes, live: bytes, counted: 0 });
        lines.add(Piece { slab, start: 0, end: bytes });
        if let Some(noted) = noted {
            lines.note(noted);
        }
    }

    /// Gives back the memory that was not needed for six rounds; called once a second.
    pub fn shrink(&mut self) {
        let needless = self.untouched.into_iter().min().unwrap_or_default();
        for number in self.free.drain(..needless) {
            if let Some(slab) = self.slabs.get_mut(number) {
                slab.memory = Memory::None;
            }
            self.vacant.push(number);
        }
        self.untouched = self.untouched.map(|count| count - needless);
        self.untouched.rotate_right(1);
        let [since_the_last, ..] = &mut self.untouched;
        *since_the_last = self.free.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn write(slabs: &mut Slabs, lines: &mut Lines, text: &[u8]) {
        slabs.write(lines, |out| out.extend_from_slice(text));
    }

    #[test]
    fn one_session_alone_fills_one_slab_again_and_again() {
        let (mut slabs, mut lines) = (Slabs::default(), Lines::default());
        for _ in 0..10_000 {
            for _ in 0..5 {
                write(&mut slabs, &mut lines, &[b'x'; 3000]);
            }
            assert_eq!((lines.pieces(), lines.bytes()), (1, 15_000));
            assert_eq!(slabs.release(&mut lines), 15_000);
        }
        assert_eq!(slabs.bytes_in_use(), SLAB_BYTES);
    }

    #[test]
    fn what_is_released_in_order_is_used_again() {
        let mut slabs = Slabs::default();
        let mut all = std::collections::VecDeque::new();
        for _ in 0..10_000 {
            let mut lines = Lines::default();
            write(&mut slabs, &mut lines, &[b'x'; 4000]);
            all.push_back(lines);
            if all.len() > 200 {
                slabs.release(&mut all.pop_front().unwrap());
            }
        }
        // Two hundred lines in whole slabs, with a part of the first and of the last.
        let slabs_max = 200 / (SLAB_BYTES / 4000) + 2;
        assert!(slabs.bytes_in_use() <= slabs_max * SLAB_BYTES, "{}", slabs.bytes_in_use());
        assert!(slabs.slabs.len() <= slabs_max + 1, "{}", slabs.slabs.len());
    }

    #[test]
    fn a_line_larger_than_a_slab_has_its_own_and_gives_it_back() {
        let (mut slabs, mut large, mut small) = (Slabs::default(), Lines::default(), Lines::default());
        write(&mut slabs, &mut large, &vec![b'x'; 3 * SLAB_BYTES]);
        write(&mut slabs, &mut small, b"small");
        assert_eq!(slabs.copy(&large).len(), 3 * SLAB_BYTES);
        slabs.release(&mut large);
        assert_eq!(slabs.bytes_in_use(), SLAB_BYTES);
        slabs.release(&mut small);
        assert_eq!(slabs.live_bytes(), 0);
    }

    #[test]
    fn what_is_set_aside_holds_no_slab() {
        let (mut slabs, mut old, mut new) = (Slabs::default(), Lines::default(), Lines::default());
        write(&mut slabs, &mut old, b"old ");
        write(&mut slabs, &mut new, b"new");
        write(&mut slabs, &mut old, b"lines");
        slabs.set_aside(&mut old);
        assert_eq!((slabs.copy(&old), old.pieces()), (b"old lines".to_vec(), 1));
        assert_eq!(slabs.slice(&old, 4, 9), b"lines");
        slabs.release(&mut new);
        write(&mut slabs, &mut old, b" and more");
        assert_eq!(slabs.copy(&old), b"old lines and more");
        slabs.release(&mut old);
        assert_eq!((slabs.live_bytes(), slabs.bytes_in_use()), (0, SLAB_BYTES));
    }

    #[test]
    fn what_was_refused_leaves_nothing_in_use() {
        let (mut slabs, mut lines) = (Slabs::default(), Lines::default());
        write(&mut slabs, &mut lines, b"before");
        for room in [1, SLAB_BYTES, SLAB_BYTES + 1, 4 * SLAB_BYTES] {
            assert!(!slabs.write_within(&mut lines, room, |_| None));
        }
        write(&mut slabs, &mut lines, b" and behind");
        assert_eq!(slabs.copy(&lines), b"before and behind");
        slabs.release(&mut lines);
        assert_eq!((slabs.bytes_in_use(), slabs.live_bytes()), (SLAB_BYTES, 0));
    }

    #[test]
    fn large_and_small_lines_in_turn_share_no_slab() {
        let (mut slabs, mut small) = (Slabs::default(), Lines::default());
        for _ in 0..10 {
            let mut large = Lines::default();
            write(&mut slabs, &mut large, &[b'x'; SLAB_BYTES + 1]);
            write(&mut slabs, &mut small, &[b'x'; 4000]);
            slabs.release(&mut large);
        }
        assert_eq!((small.pieces(), slabs.bytes_in_use()), (1, SLAB_BYTES));
    }

    #[test]
    fn numbers_are_used_again() {
        let mut slabs = Slabs::default();
        for _ in 0..1000 {
            let (mut old, mut new) = (Lines::default(), Lines::default());
            write(&mut slabs, &mut old, b"old");
            slabs.set_aside(&mut old);
            write(&mut slabs, &mut new, b"new");
            assert_eq!((slabs.copy(&old), slabs.copy(&new)), (b"old".to_vec(), b"new".to_vec()));
            slabs.release(&mut old);
            slabs.release(&mut new);
        }
        assert!(slabs.slabs.len() <= 2, "{}", slabs.slabs.len());
    }

    #[test]
    fn memory_that_was_not_needed_is_given_back() {
        let mut slabs = Slabs::default();
        let mut lines = Lines::default();
        let kept =
            |slabs: &Slabs| slabs.slabs.iter().map(|slab| slab.memory.len()).sum::<usize>() / SLAB_BYTES;
        let mut round = |slabs: &mut Slabs, needed: usize| {
            for _ in 0..needed {
                write(slabs, &mut lines, &[b'x'; SLAB_BYTES]);
            }
            slabs.release(&mut lines);
            slabs.shrink();
            kept(slabs)
        };
        for needed in [20, 1, 1, 1, 1, 20, 1, 1, 1, 1, 20, 1, 1, 1, 1, 1] {
            assert_eq!(round(&mut slabs, needed), 20, "all of it is needed again and again");
        }
        round(&mut slabs, 0);
        round(&mut slabs, 0);
        assert_eq!(kept(&slabs), 1, "the one that is being filled");
        write(&mut slabs, &mut lines, b"goes on");
        assert_eq!(slabs.copy(&lines), b"goes on");
    }

    #[derive(Debug, Clone)]
    enum Act {
        Write(usize, Vec<u8>),
        WriteMuch(usize, usize),
        Truncate(usize, usize),
        Release(usize),
        SetAside(usize),
        Shrink,
    }

    fn act() -> impl Strategy<Value = Act> {
        let who = 0..6_usize;
        prop_oneof![
            8 => (who.clone(), vec(any::<u8>(), 0..40)).prop_map(|(who, text)| Act::Write(who, text)),
            3 => (who.clone(), 1..2 * SLAB_BYTES).prop_map(|(who, bytes)| Act::WriteMuch(who, bytes)),
            2 => (who.clone(), any::<usize>()).prop_map(|(who, at)| Act::Truncate(who, at)),
            3 => who.clone().prop_map(Act::Release),
            1 => who.prop_map(Act::SetAside),
            1 => Just(Act::Shrink),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Beside six plain vectors.
        #[test]
        fn everybody_has_what_they_wrote(acts in vec(act(), 0..200)) {
            let mut slabs = Slabs::default();
            let mut lines: [Lines; 6] = Default::default();
            let mut model: [Vec<u8>; 6] = Default::default();
            for act in acts {
                match act {
                    Act::Write(who, text) => {
                        let start = lines[who].bytes();
                        write(&mut slabs, &mut lines[who], &text);
                        prop_assert_eq!(slabs.slice(&lines[who], start, lines[who].bytes()), &*text);
                        model[who].extend(text);
                    }
                    Act::WriteMuch(who, bytes) => {
                        let text = vec![u8::try_from(bytes % 251).unwrap(); bytes];
                        write(&mut slabs, &mut lines[who], &text);
                        model[who].extend(text);
                    }
                    Act::Truncate(who, at) => {
                        let at = at % (model[who].len() + 1);
                        slabs.truncate(&mut lines[who], at);
                        model[who].truncate(at);
                    }
                    Act::Release(who) => {
                        prop_assert_eq!(slabs.release(&mut lines[who]), model[who].len());
                        model[who].clear();
                    }
                    Act::SetAside(who) => slabs.set_aside(&mut lines[who]),
                    Act::Shrink => slabs.shrink(),
                }
                prop_assert_eq!(slabs.live_bytes(), model.iter().map(Vec::len).sum::<usize>());
            }
            for (lines, model) in lines.iter_mut().zip(model) {
                prop_assert_eq!(lines.bytes(), model.len());
                prop_assert!(slabs.copy(lines) == model);
                slabs.release(lines);
            }
            prop_assert!(slabs.bytes_in_use() <= SLAB_BYTES);
        }
    }
}
