//! Slot table with generations: small dense indices for what comes and goes.
//!
//! A slot that is freed and reused in one batch of events gets its predecessor's events; comparing generations
//! makes them harmless. Speaks [`SlotId`]; whoever needs one as a number packs it with [`SlotId::pack`].

/// Index and generation of one occupied slot. Generations start at 1, so a packed id is never below 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// Position in the table.
    pub index: u32,
    /// How often the slot had been filled before, plus one; wraps to 1.
    pub generation: u32,
}

impl SlotId {
    /// Both parts in one number: generation in the upper, index in the lower half.
    #[must_use]
    pub fn pack(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The reverse of [`SlotId::pack`].
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart on purpose")]
    pub fn unpack(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 }
    }
}

impl std::fmt::Display for SlotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// A table of `T` addressed by [`SlotId`]. Grows to the largest number held at once, what bounds it is the limit of
/// whoever inserts; when the last one goes its memory is given back.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// The generation with which a slot begins: above all that were given back.
    first_generation: u32,
}

/// A table of no more slots than this keeps its memory.
const KEPT_SLOTS: usize = 1024;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), first_generation: 1 }
    }
}

impl<T> Slots<T> {
    /// Number of occupied slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no slot is occupied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores what `make` returns for the id it will have.
    ///
    /// # Panics
    /// When 2^32 slots are occupied.
    pub fn insert_with(&mut self, make: impl FnOnce(SlotId) -> T) -> SlotId {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.generation = slot.generation.checked_add(1).unwrap_or(1);
            let id = SlotId { index, generation: slot.generation };
            slot.value = Some(make(id));
            return id;
        }
        #[expect(clippy::expect_used, reason = "2^32 sockets or sessions cannot exist at once")]
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 slots");
        let id = SlotId { index, generation: self.first_generation };
        self.slots.push(Slot { generation: id.generation, value: Some(make(id)) });
        id
    }

    /// What stands under `id`; `None` when it is gone.
    #[must_use]
    pub fn find(&self, id: SlotId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_ref() } else { None }
    }

    /// As [`Slots::find`], to change it.
    pub fn find_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    /// The id of what stands at `index`.
    #[must_use]
    pub fn id_at(&self, index: u32) -> Option<SlotId> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| SlotId { index, generation: slot.generation })
    }

    /// Takes out what stands under `id`.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        self.free.push(id.index);
        if self.is_empty() && self.slots.len() > KEPT_SLOTS {
            self.start_anew();
        }
        Some(value)
    }

    fn start_anew(&mut self) {
        let newest = self.slots.iter().map(|slot| slot.generation).max().unwrap_or(0);
        *self = Self { first_generation: newest.checked_add(1).unwrap_or(1), ..Self::default() };
    }

    /// The ids of all occupied slots, in index order.
    pub fn ids(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.iter().map(|(id, _)| id)
    }

    /// All occupied slots, in index order.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> + '_ {
        (0_u32..).zip(&self.slots).filter_map(|(index, slot)| {
            let id = SlotId { index, generation: slot.generation };
            slot.value.as_ref().map(|value| (id, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_reused_slot_does_not_answer_to_its_old_id() {
        let mut slots = Slots::default();
        let first = slots.insert_with(|_| 'a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert_with(|_| 'b');
        assert_eq!(first.index, second.index);
        assert_eq!(slots.find(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.find(second), Some(&'b'));
        assert_eq!(SlotId::unpack(second.pack()), second);
        assert!(second.pack() >= 1 << 32);
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back_and_no_id_twice() {
        let mut slots = Slots::default();
        let first: Vec<SlotId> = (0..2 * KEPT_SLOTS).map(|n| slots.insert_with(|_| n)).collect();
        for id in &first {
            slots.remove(*id);
        }
        assert_eq!((slots.len(), slots.slots.capacity(), slots.free.capacity()), (0, 0, 0));
        let again = slots.insert_with(|_| 7);
        assert!(!first.contains(&again));
        assert_eq!((slots.find(again), slots.find(first[0])), (Some(&7), None));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 1..200)) {
            let mut slots = Slots::default();
            let mut model: HashMap<SlotId, u16> = HashMap::new();
            let mut issued = Vec::new();
            for (insert, value) in steps {
                if insert || issued.is_empty() {
                    let id = slots.insert_with(|_| value);
                    prop_assert!(model.insert(id, value).is_none(), "an id was issued twice");
                    issued.push(id);
                } else {
                    let id = issued[usize::from(value) % issued.len()];
                    prop_assert_eq!(slots.remove(id), model.remove(&id));
                }
                prop_assert_eq!(slots.len(), model.len());
                for id in &issued {
                    prop_assert_eq!(slots.find(*id), model.get(id));
                }
            }
        }
    }
}
