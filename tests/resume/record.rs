//! What a client did against what was archived.

use std::fmt;

use crate::client::Leave;
use crate::support::Archive;
use crate::trace::{Fate, Trace};

/// How a session ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// 3001 after everything was sent.
    Settled,
    /// 3001 with entries unsent: nothing is flushed by this client.
    Abrupt,
    /// A zombie that is gone.
    Vanished,
    /// The server told it to leave (3001).
    ToldToLeave,
    /// The server refused an entry for good (3002).
    Refused,
    /// The client closed with 3002 by its own rule.
    GaveUp,
    /// No attempt was left.
    OutOfAttempts,
}

impl Ending {
    pub(crate) fn of(leave: Leave) -> Self {
        match leave {
            Leave::Settled => Self::Settled,
            Leave::Abruptly => Self::Abrupt,
            Leave::AsZombie => Self::Vanished,
        }
    }
}

/// One session as its client saw it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) trace: Trace,
    pub(crate) ending: Ending,
    pub(crate) connections: u64,
}

/// What came of many sessions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) sessions: u64,
    pub(crate) connections: u64,
    pub(crate) entries: u64,
    pub(crate) archived: u64,
    pub(crate) acknowledged: u64,
    // What must be 0.
    pub(crate) missing: u64,
    pub(crate) twice: u64,
    pub(crate) out_of_order: u64,
    pub(crate) altered: u64,
    pub(crate) acknowledged_and_lost: u64,
    pub(crate) split: u64,
    // What no server can help.
    pub(crate) overflowed: u64,
    pub(crate) unsent_at_leave: u64,
    pub(crate) unsent_without_attempts: u64,
    pub(crate) refused_for_good: u64,
    pub(crate) given_up: u64,
}

impl Figures {
    pub(crate) fn defects(&self) -> u64 {
        self.missing + self.twice + self.out_of_order + self.altered + self.acknowledged_and_lost + self.split
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.sessions, other.sessions),
            (&mut self.connections, other.connections),
            (&mut self.entries, other.entries),
            (&mut self.archived, other.archived),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.missing, other.missing),
            (&mut self.twice, other.twice),
            (&mut self.out_of_order, other.out_of_order),
            (&mut self.altered, other.altered),
            (&mut self.acknowledged_and_lost, other.acknowledged_and_lost),
            (&mut self.split, other.split),
            (&mut self.overflowed, other.overflowed),
            (&mut self.unsent_at_leave, other.unsent_at_leave),
            (&mut self.unsent_without_attempts, other.unsent_without_attempts),
            (&mut self.refused_for_good, other.refused_for_good),
            (&mut self.given_up, other.given_up),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sessions, {} connections, {} entries traced, {} acknowledged, {} archived",
            self.sessions, self.connections, self.entries, self.acknowledged, self.archived
        )?;
        writeln!(
            f,
            "missing {}, twice {}, out of order {}, altered {}, acknowledged and lost {}, in a second dump {}",
            self.missing, self.twice, self.out_of_order, self.altered, self.acknowledged_and_lost, self.split
        )?;
        write!(
            f,
            "beyond any server: {} overflowed the client's buffer, {} unsent at an abrupt leave, {} unsent when no \
             attempt was left, {} behind an entry refused for good, {} given up by the client's own rule",
            self.overflowed,
            self.unsent_at_leave,
            self.unsent_without_attempts,
            self.refused_for_good,
            self.given_up
        )
    }
}

impl Record {
    /// Compares with the archive, which must be complete by now.
    pub(crate) fn check(&self, archive: &Archive) -> Figures {
        let trace = &self.trace;
        let mut figures = Figures {
            sessions: 1,
            connections: self.connections,
            entries: trace.count,
            acknowledged: trace.fates.iter().filter(|fate| **fate == Fate::Acknowledged).count() as u64,
            ..Figures::default()
        };
        let dumps = archive.dumps_of(&trace.id);
        figures.split = (dumps.len() as u64).saturating_sub(1);
        let mut seen = vec![0_u32; trace.count as usize];
        let mut previous = 0;
        for line in dumps.iter().flat_map(|dump| dump.body.lines()) {
            figures.archived += 1;
            let number =
                number_of(line, trace.habits.is_legacy).filter(|number| (1..=trace.count).contains(number));
            let Some(number) = number.filter(|number| trace.line(*number).matches(line)) else {
                figures.altered += 1;
                eprintln!("{}: altered: {line:.200}", trace.id);
                continue;
            };
            seen[number as usize - 1] += 1;
            if number <= previous {
                figures.out_of_order += 1;
            }
            previous = number;
        }
        for (index, (fate, times)) in trace.fates.iter().zip(&seen).enumerate() {
            figures.twice += u64::from(times.saturating_sub(1));
            if *times > 0 {
                continue;
            }
            let number = index as u64 + 1;
            let sum = match (fate, self.ending) {
                (Fate::Acknowledged, _) => &mut figures.acknowledged_and_lost,
                (Fate::SentOnce | Fate::NeverSent, _) => &mut figures.overflowed,
                // The 3002 may have been lost on its way, and a zombie does not wait for it.
                (Fate::Buffered, _) if (1..=number).contains(&trace.habits.giant) => {
                    &mut figures.refused_for_good
                }
                (
                    Fate::Buffered,
                    Ending::Settled | Ending::Vanished | Ending::ToldToLeave | Ending::Refused,
                ) => &mut figures.missing,
                (Fate::Buffered, Ending::Abrupt) => &mut figures.unsent_at_leave,
                (Fate::Buffered, Ending::OutOfAttempts) => &mut figures.unsent_without_attempts,
                (Fate::Buffered, Ending::GaveUp) => &mut figures.given_up,
            };
            *sum += 1;
        }
        if figures.defects() > 0 {
            self.explain(&figures, &seen);
        }
        figures
    }

    fn explain(&self, figures: &Figures, seen: &[u32]) {
        let trace = &self.trace;
        let absent: Vec<_> =
            (1..=trace.count).filter(|number| seen[*number as usize - 1] == 0).take(20).collect();
        let twice: Vec<_> =
            (1..=trace.count).filter(|number| seen[*number as usize - 1] > 1).take(20).collect();
        eprintln!(
            "session {} ended {:?} after {} connections, {:?}\n{figures}\nabsent {absent:?}\ntwice {twice:?}",
            trace.id, self.ending, self.connections, trace.habits
        );
    }
}

/// The number at the end of an archived line.
fn number_of(line: &str, is_legacy: bool) -> Option<u64> {
    let array = if is_legacy {
        let (request, _) = line.rsplit_once(",\"timestamp\":")?;
        request.trim_end_matches('"')
    } else {
        line
    };
    let (_, number) = array.strip_suffix(']')?.rsplit_once(',')?;
    number.parse().ok()
}
