//! The watermarks of a session: which numbers were received, written, made durable, and which are to be acknowledged.
//!
//! Pure, and knows of the client's numbers alone. Rules: our contract, section 4; client: buffering, acknowledgement.

use crate::numbering;

/// One entry in so many is acknowledged as soon as it is durable. The client's buffer spans 1000 consecutive
/// entries and shrinks only when an acknowledged number is found in it, so this must be well below 1000.
const ENTRIES_PER_MILESTONE: u32 = 100;

/// The watermarks of a session and what is to be acknowledged. All numbers are the client's entry numbers;
/// 0 stands for none, and `received >= appended >= durable` always.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Highest number taken; duplicates are judged by it.
    received: u64,
    /// The rest, unless all that was received is durable and at most its newest number is to be acknowledged: so it is for
    /// most sessions most of the time.
    unsettled: Option<Box<Unsettled>>,
    /// Numbered entries since the last milestone.
    since_milestone: u32,
    /// Without `unsettled`: whether the newest number may be acknowledged and is not yet; with it, false.
    owes_newest: bool,
}

/// What lies between received and acknowledged.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unsettled {
    /// Highest number that is written to the dump.
    appended: u64,
    /// Highest number such that it and all before it are as safe as `dump.durability` promises.
    durable: u64,
    /// Newest durable number that may be acknowledged and is not yet; 0 = none.
    newest: u64,
    /// Newest appended number that may be acknowledged once it is durable; 0 = none.
    newest_appended: u64,
    /// Numbers to be acknowledged once durable, in order of arrival. At most one per
    /// [`ENTRIES_PER_MILESTONE`] entries and one per gap between two flushes.
    milestones: Vec<u64>,
}

impl Unsettled {
    /// How it is when all up to `number` is durable, and `number` perhaps to be acknowledged.
    fn settled(number: u64, owes_newest: bool) -> Self {
        let newest = if owes_newest { number } else { 0 };
        Self { appended: number, durable: number, newest, ..Self::default() }
    }

    /// The end of a run before a gap may have been the hundredth entry, too.
    fn add_milestone(&mut self, number: u64) {
        if self.milestones.last() != Some(&number) {
            self.milestones.push(number);
        }
    }
}

/// How far a session was appended at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    appended: u64,
    /// The newest number up to there that may be acknowledged; 0 = none.
    newest: u64,
}

/// What a number means for the session it arrived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one, or the first one.
    Next,
    /// Numbers before it were never received: so many.
    Gap(u64),
    /// Taken before.
    Duplicate,
}

impl Ledger {
    /// Highest number taken.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Highest durable number: what a greeting carries.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.unsettled.as_ref().map_or(self.received, |unsettled| unsettled.durable)
    }

    fn unsettled(&mut self) -> &mut Unsettled {
        let owes_newest = std::mem::take(&mut self.owes_newest);
        self.unsettled.get_or_insert_with(|| Box::new(Unsettled::settled(self.received, owes_newest)))
    }

    fn settle(&mut self) {
        let Some(unsettled) = &self.unsettled else { return };
        let owes_newest = unsettled.newest != 0;
        if **unsettled == Unsettled::settled(self.received, owes_newest) {
            self.unsettled = None;
            self.owes_newest = owes_newest;
        }
    }

    /// What `number` would mean now.
    #[must_use]
    pub fn judge(&self, number: u64) -> Verdict {
        if number <= self.received {
            Verdict::Duplicate
        } else if self.received > 0 && number > self.received + 1 {
            Verdict::Gap(number - self.received - 1)
        } else {
            Verdict::Next
        }
    }

    /// Takes a new number. `line` is the entry's array, `previous` the last numbered one when it is not yet
    /// durable: it ends the run before a gap and is acknowledged for itself.
    pub(crate) fn take(&mut self, number: u64, line: &[u8], previous: Option<&[u8]>) -> Verdict {
        let verdict = self.judge(number);
        match verdict {
            Verdict::Duplicate => {
                if numbering::is_acknowledgeable(line) {
                    let unsettled = self.unsettled();
                    if number <= unsettled.durable {
                        unsettled.newest = number;
                    } else if number <= unsettled.appended {
                        unsettled.newest_appended = number;
                    }
                    self.count_towards_milestone(number, line);
                }
                return verdict;
            }
            Verdict::Gap(_) => {
                let (received, unsettled) = (self.received, self.unsettled());
                let ends_run = previous.is_some_and(numbering::is_acknowledgeable);
                if ends_run || unsettled.newest == received || unsettled.newest_appended == received {
                    unsettled.add_milestone(received);
                }
            }
            Verdict::Next => {}
        }
        // Before `received` changes, so that what is settled ends there.
        self.unsettled();
        self.received = number;
        self.count_towards_milestone(number, line);
        verdict
    }

    fn count_towards_milestone(&mut self, number: u64, line: &[u8]) {
        self.since_milestone += 1;
        if self.since_milestone >= ENTRIES_PER_MILESTONE && numbering::is_acknowledgeable(line) {
            self.unsettled().add_milestone(number);
            self.since_milestone = 0;
        }
    }

    /// Everything received is written. `last` is the last numbered entry among what was written now.
    pub(crate) fn append(&mut self, last: Option<&[u8]>) {
        let Some(unsettled) = &mut self.unsettled else { return };
        unsettled.appended = self.received;
        if last.is_some_and(numbering::is_acknowledgeable) {
            unsettled.newest_appended = self.received;
        }
    }

    /// How far it is written now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        match &self.unsettled {
            Some(unsettled) => Mark { appended: unsettled.appended, newest: unsettled.newest_appended },
            None => Mark { appended: self.received, newest: 0 },
        }
    }

    /// What was written at `mark` is as safe as promised.
    pub fn make_durable(&mut self, mark: Mark) {
        if self.unsettled.is_none() && mark.appended <= self.received && mark.newest == 0 {
            return;
        }
        let unsettled = self.unsettled();
        unsettled.durable = unsettled.durable.max(mark.appended);
        if mark.newest != 0 {
            unsettled.newest = mark.newest;
        }
        if unsettled.newest_appended == mark.newest {
            unsettled.newest_appended = 0;
        }
        self.settle();
    }

    /// What was received but not written is lost; the client still has it.
    pub(super) fn forget_unwritten(&mut self) {
        self.received = self.mark().appended;
        self.restart_acknowledging();
    }

    /// What was written since the last good sync counts as lost; the client still has it.
    pub fn forget_unsynced(&mut self) {
        *self = Self::recovered(self.durable());
    }

    /// Of a session that had come to `last`, as far as its dump says.
    #[must_use]
    pub fn recovered(last: u64) -> Self {
        Self { received: last, ..Self::default() }
    }

    /// What is written may not be safe: nobody knows whether it was synced before the crash.
    pub fn doubt(&mut self) {
        let unsettled = self.unsettled();
        (unsettled.durable, unsettled.newest) = (0, 0);
        self.settle();
    }

    /// A new connection: nothing is known of what its client still buffers.
    pub(super) fn restart_acknowledging(&mut self) {
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.milestones = Vec::new();
            (unsettled.newest, unsettled.newest_appended) = (0, 0);
        }
        (self.since_milestone, self.owes_newest) = (0, false);
        self.settle();
    }

    /// Takes the acknowledgements that may be sent now, oldest first: every durable milestone and, when `with_newest`,
    /// the newest number.
    pub fn take_acknowledgements(&mut self, with_newest: bool, mut send: impl FnMut(u64)) {
        let Some(unsettled) = &mut self.unsettled else {
            if with_newest && std::mem::take(&mut self.owes_newest) {
                send(self.received);
            }
            return;
        };
        let durable = unsettled.durable;
        let mut last = 0;
        unsettled.milestones.retain(|number| {
            if *number <= durable {
                last = *number;
                send(*number);
            }
            *number > durable
        });
        // Only the last entry of an append is looked at, so an older one may have been left here. Numbers never go back,
        // and a newer one has just told the client all that this one could.
        if unsettled.newest <= last {
            unsettled.newest = 0;
        }
        if with_newest && unsettled.newest != 0 && unsettled.newest <= durable {
            send(unsettled.newest);
            unsettled.newest = 0;
        }
        self.settle();
    }

    /// Whether something durable waits to be acknowledged.
    #[must_use]
    pub fn has_unacknowledged(&self) -> bool {
        self.unsettled.as_ref().map_or(self.owes_newest, |unsettled| unsettled.newest != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_only_waits_to_be_acknowledged_needs_no_memory() {
        let mut ledger = Ledger::default();
        let sent = |ledger: &mut Ledger, with_newest| -> Vec<u64> {
            let mut numbers = Vec::new();
            ledger.take_acknowledgements(with_newest, |number| numbers.push(number));
            numbers
        };
        for number in 1..=3 {
            let line = format!(r#"["x",null,1,1700000000000,{number}]"#);
            assert_eq!(ledger.take(number, line.as_bytes(), None), Verdict::Next);
            assert!(ledger.unsettled.is_some());
            ledger.append(Some(line.as_bytes()));
            ledger.make_durable(ledger.mark());
            assert!(ledger.unsettled.is_none() && ledger.has_unacknowledged());
            assert!(sent(&mut ledger, false).is_empty());
        }
        assert_eq!(sent(&mut ledger, true), [3]);
        assert!(!ledger.has_unacknowledged());
        assert!(sent(&mut ledger, true).is_empty());
        // One that is sent again is acknowledged once more, by whatever number it has.
        assert_eq!(ledger.take(2, br#"["x",null,1,1700000000000,2]"#, None), Verdict::Duplicate);
        assert_eq!(sent(&mut ledger, true), [2]);
        assert!(ledger.unsettled.is_none());
    }

    #[test]
    fn a_new_connection_is_told_nothing_of_what_the_old_one_sent() {
        let mut ledger = Ledger::default();
        ledger.take(1, br#"["x",null,1,1700000000000,1]"#, None);
        ledger.append(Some(br#"["x",null,1,1700000000000,1]"#));
        ledger.make_durable(ledger.mark());
        ledger.restart_acknowledging();
        assert!(!ledger.has_unacknowledged());
        assert_eq!(ledger.durable(), 1);
    }
}
