//! Signals of the process as an event source of the loop.
//!
//! SIGTERM and SIGINT ask for a stop, SIGHUP for a reload of the configuration. Owns their handlers, from
//! [`Signals::new`] on; before it, and in commands that do not serve, they end the process as usual. Never
//! decides what a stop means. SIGPIPE is ignored by Rust's start-up code, so a write to a closed pipe or
//! socket is an error like any other; a test of the binary holds that.
//!
//! A handler that ran interrupts `poll`, which then returns `Interrupted`: an empty turn.

use std::fmt;
use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop. The first time: in order, with time for peers and workers; from the second time on: at once.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Receives the signals of the process. One per process is enough; all of them would see every signal.
pub struct Signals {
    source: signal_hook_mio::v1_0::Signals,
    stops: Stops,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("stops", &self.stops).finish_non_exhaustive()
    }
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left for the pipe between handler and loop.
    pub fn new() -> io::Result<Self> {
        let source = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        Ok(Self { source, stops: Stops::default() })
    }

    /// Makes the poll of `registry` report `token`, readable, when a signal has arrived.
    ///
    /// # Errors
    ///
    /// Those of epoll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.source, token, Interest::READABLE)
    }

    /// What arrived since the last call; to be called, and used up, at every event. A signal that arrived
    /// several times in between is one.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> {
        let Self { source, stops } = self;
        source.pending().filter_map(|number| stops.meaning(number))
    }
}

/// Which signals have asked for a stop.
///
/// Only a repetition of the same signal is impatience, and passed on. Ctrl-C in a terminal reaches us and the
/// tool that started us, which may then send a SIGTERM of its own: one wish, two signals.
#[derive(Debug, Default)]
struct Stops {
    terminate: bool,
    interrupt: bool,
}

impl Stops {
    fn meaning(&mut self, number: i32) -> Option<Signal> {
        let is_first = !self.terminate && !self.interrupt;
        let seen = match number {
            SIGHUP => return Some(Signal::Reload),
            SIGTERM => &mut self.terminate,
            SIGINT => &mut self.interrupt,
            _ => return None,
        };
        let is_repeated = std::mem::replace(seen, true);
        (is_first || is_repeated).then_some(Signal::Stop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};
    use rustix::process::{getpid, kill_process};

    use super::*;

    #[test]
    fn only_the_same_signal_again_is_a_second_stop() {
        use Signal::{Reload, Stop};
        let cases: [(&[i32], &[Option<Signal>]); 6] = [
            (&[SIGTERM], &[Some(Stop)]),
            (&[SIGTERM, SIGTERM, SIGTERM], &[Some(Stop), Some(Stop), Some(Stop)]),
            (&[SIGINT, SIGTERM], &[Some(Stop), None]),
            (&[SIGINT, SIGTERM, SIGTERM], &[Some(Stop), None, Some(Stop)]),
            (&[SIGTERM, SIGINT, SIGINT], &[Some(Stop), None, Some(Stop)]),
            (&[SIGHUP, SIGTERM, SIGHUP], &[Some(Reload), Some(Stop), Some(Reload)]),
        ];
        for (numbers, expected) in cases {
            let mut stops = Stops::default();
            let meanings: Vec<_> = numbers.iter().map(|number| stops.meaning(*number)).collect();
            assert_eq!(meanings, expected, "{numbers:?}");
        }
    }

    /// Real signals to this process, through a real poll. The only test that sends any: every receiver sees
    /// all.
    #[test]
    fn signals_wake_the_loop() {
        let mut poll = Poll::new().unwrap();
        let mut signals = Signals::new().unwrap();
        signals.register(poll.registry(), Token(7)).unwrap();
        let mut receive = |number| {
            kill_process(getpid(), number).unwrap();
            let mut events = Events::with_capacity(4);
            loop {
                match poll.poll(&mut events, Some(Duration::from_secs(10))) {
                    Ok(()) => break,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
                }
            }
            assert!(events.iter().any(|event| event.token() == Token(7) && event.is_readable()));
            signals.pending().collect::<Vec<_>>()
        };
        assert_eq!(receive(rustix::process::Signal::HUP), [Signal::Reload]);
        assert_eq!(receive(rustix::process::Signal::TERM), [Signal::Stop]);
        assert_eq!(receive(rustix::process::Signal::INT), []);
        assert_eq!(receive(rustix::process::Signal::TERM), [Signal::Stop]);
    }
}
