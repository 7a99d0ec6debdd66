//! Connections between simulated clients and the broker's own dispatcher. Frames of a connection arrive in their order and
//! are started as the server starts them: one at a time, except that Produce requests overlap; replies leave in order. A
//! connection may break at any moment: what was under way is then dropped half done, or goes on unheard, and what was on
//! its way arrives late, beside the requests of the next connection, or never.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use taccola_net::server::{Call, ConnectionInfo, Reply, Service};

use super::rng::Rng;
use crate::dispatch::Dispatcher;

/// A request that a client wants sent. The tag is the client's own.
pub(super) struct Ask {
    pub(super) tag: u64,
    pub(super) frame: Bytes,
}

/// What became of a request: its tag, and the reply's frame unless the connection broke.
pub(super) struct Answer {
    pub(super) client: usize,
    pub(super) tag: u64,
    pub(super) frame: Option<Bytes>,
}

#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Pending = Pin<Box<dyn Future<Output = Reply> + Send>>;

enum State {
    Pending(Pending),
    Done(Option<Bytes>),
}

struct Running {
    tag: u64,
    state: State,
    flag: Arc<Flag>,
    overlaps: bool,
}

struct Connection {
    client: usize,
    info: Arc<ConnectionInfo>,
    arriving: VecDeque<Ask>,
    running: VecDeque<Running>,
    /// Nobody listens at the other end any more.
    broken: bool,
}

#[derive(Default)]
pub(super) struct Network {
    connections: Vec<Connection>,
    next_id: u64,
}

/// One thing that can happen next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The next frame of a connection arrives.
    Arrives(usize),
    /// A request that was woken goes on: connection, place in it.
    Goes(usize, usize),
}

impl Network {
    /// Puts a request on the client's connection, which is made if there is none.
    pub(super) fn send(&mut self, client: usize, ask: Ask) {
        let at = self.connections.iter().position(|connection| connection.client == client && !connection.broken);
        let at = at.unwrap_or_else(|| {
            self.next_id += 1;
            let peer = SocketAddr::from(([127, 0, 0, 1], 10_000 + client as u16));
            let local = SocketAddr::from(([127, 0, 0, 1], 9092));
            let info = ConnectionInfo { id: self.next_id, listener: "PLAINTEXT".into(), peer, local };
            let (arriving, running) = (VecDeque::new(), VecDeque::new());
            self.connections.push(Connection { client, info: Arc::new(info), arriving, running, broken: false });
            self.connections.len() - 1
        });
        self.connections[at].arriving.push_back(ask);
    }

    /// Everything that could happen now.
    pub(super) fn events(&self, dispatcher: &Dispatcher) -> Vec<Event> {
        let mut events = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            if connection.may_start(dispatcher) {
                events.push(Event::Arrives(index));
            }
            for (place, running) in connection.running.iter().enumerate() {
                if matches!(running.state, State::Pending(_)) && running.flag.0.load(Ordering::Relaxed) {
                    events.push(Event::Goes(index, place));
                }
            }
        }
        events
    }

    /// Lets one event happen; answers that reach their client come back.
    pub(super) fn happen(&mut self, dispatcher: &Dispatcher, event: Event) -> Vec<Answer> {
        let index = match event {
            Event::Arrives(index) => {
                self.connections[index].start(dispatcher);
                index
            }
            Event::Goes(index, place) => {
                self.connections[index].running[place].go_on();
                index
            }
        };
        self.connections[index].replies()
    }

    /// Connections with something under way.
    pub(super) fn busy(&self) -> Vec<usize> {
        let busy = |connection: &Connection| !connection.arriving.is_empty() || !connection.running.is_empty();
        (0..self.connections.len()).filter(|index| busy(&self.connections[*index])).collect()
    }

    /// Whose a connection is.
    pub(super) fn client(&self, index: usize) -> usize {
        self.connections[index].client
    }

    /// Breaks a connection; what its client hears of it.
    pub(super) fn break_off(
        &mut self,
        dispatcher: &Dispatcher,
        index: usize,
        late: bool,
        rng: &mut Rng,
    ) -> Vec<Answer> {
        let connection = &mut self.connections[index];
        let answers = connection.give_up();
        if rng.one_in(2) {
            connection.running.clear();
        }
        // What was sent may still arrive, all of it up to some point.
        let arrives = if late { rng.index(connection.arriving.len() + 1) } else { 0 };
        connection.arriving.truncate(arrives);
        if connection.arriving.is_empty() && connection.running.is_empty() {
            dispatcher.disconnected(&connection.info);
            self.connections.remove(index);
        }
        answers
    }

    /// The broker is gone: nothing is under way any more.
    pub(super) fn cut(&mut self) -> Vec<Answer> {
        let answers = self.connections.iter_mut().flat_map(Connection::give_up).collect();
        self.connections.clear();
        answers
    }

    /// Forgets broken connections that have nothing left to do.
    pub(super) fn tidy(&mut self, dispatcher: &Dispatcher) {
        self.connections.retain(|connection| {
            let over = connection.broken && connection.arriving.is_empty() && connection.running.is_empty();
            if over {
                dispatcher.disconnected(&connection.info);
            }
            !over
        });
    }
}

impl Connection {
    fn may_start(&self, dispatcher: &Dispatcher) -> bool {
        let Some(next) = self.arriving.front() else { return false };
        self.running.is_empty()
            || (dispatcher.overlaps(&next.frame) && self.running.iter().all(|running| running.overlaps))
    }

    fn start(&mut self, dispatcher: &Dispatcher) {
        let Some(Ask { tag, frame }) = self.arriving.pop_front() else { return };
        let mut overlaps = dispatcher.overlaps(&frame);
        let state = match dispatcher.call(&self.info, frame) {
            Call::Done(reply) => State::Done(bytes(reply)),
            Call::Pending(future) => State::Pending(future),
            Call::Exclusive(future) => {
                overlaps = false;
                State::Pending(future)
            }
        };
        self.running.push_back(Running { tag, state, flag: Arc::new(Flag(AtomicBool::new(true))), overlaps });
    }

    /// Takes the replies that are due, in order.
    fn replies(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(Running { state: State::Done(_), .. }) = self.running.front() {
            let Some(Running { tag, state: State::Done(frame), .. }) = self.running.pop_front() else { break };
            if !self.broken {
                answers.push(Answer { client: self.client, tag, frame });
            }
        }
        answers
    }

    fn give_up(&mut self) -> Vec<Answer> {
        if std::mem::replace(&mut self.broken, true) {
            return Vec::new();
        }
        let tags = self.running.iter().map(|running| running.tag).chain(self.arriving.iter().map(|ask| ask.tag));
        tags.map(|tag| Answer { client: self.client, tag, frame: None }).collect()
    }
}

impl Running {
    fn go_on(&mut self) {
        self.flag.0.store(false, Ordering::Relaxed);
        let State::Pending(future) = &mut self.state else { return };
        let waker = Waker::from(self.flag.clone());
        if let Poll::Ready(reply) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.state = State::Done(bytes(reply));
        }
    }
}

/// A reply without its size; `None` when there is none to send.
fn bytes(reply: Reply) -> Option<Bytes> {
    match reply {
        Reply::Frame(frame) => {
            let whole: BytesMut = frame.0.iter().flat_map(|chunk| chunk.iter().copied()).collect();
            Some(whole.freeze().slice(4..))
        }
        Reply::None => None,
        Reply::Close(reason) => panic!("the broker closes a connection: {reason}"),
    }
}
