//! Heartbeats of a member whose assignment the broker makes (KIP-848, KIP-932): one task per membership, which joins with
//! epoch 0, reports what is owned when that changes, and joins anew when it is fenced. It leaves when nobody polls, and comes
//! back with the next poll. It decides nothing about partitions: what the broker wants stands in a [`View`], what became of it comes back through [`Membership::own`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use taccola_base::Uuid;
use taccola_wire::error::ErrorCode;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::poll_clock::PollWatch;
use crate::cluster::{Backoff, Client, CoordinatorKind};
use crate::error::{Error, Result};

/// Member epochs with a meaning of their own.
pub(crate) const JOIN_EPOCH: i32 = 0;
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// A static member goes and will be back.
pub(crate) const STATIC_LEAVE_EPOCH: i32 = -2;
/// Shortest pause between heartbeats, whatever the broker says.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Partitions by topic id, sorted.
pub(crate) type Assignment = BTreeMap<Uuid, Vec<i32>>;

/// What one heartbeat says.
pub(crate) struct Beat<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) epoch: i32,
    /// With everything that the group has to know of the member, else only with what changed.
    pub(crate) full: bool,
    pub(crate) owned: Option<&'a Assignment>,
}

pub(crate) struct Answer {
    pub(crate) epoch: i32,
    pub(crate) interval: Duration,
    /// `None`: as before.
    pub(crate) assignment: Option<Assignment>,
}

/// One protocol's request and response.
pub(crate) trait Heartbeat: Send + Sync + 'static {
    fn group(&self) -> &str;

    /// The epoch that says goodbye.
    fn leave_epoch(&self) -> i32 {
        LEAVE_EPOCH
    }

    /// One attempt.
    fn beat(&self, client: &Client, beat: Beat<'_>) -> impl Future<Output = Result<Answer>> + Send;
}

/// What the heartbeats know.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) epoch: i32,
    /// What the broker wants this member to own; `None` outside the group.
    pub(crate) assignment: Option<Arc<Assignment>>,
    /// How often the member was put out of the group; whatever it owned before is no longer its own.
    pub(crate) losses: u64,
    /// Answers since it joined.
    pub(crate) answers: u64,
    /// Final: the heartbeats have ended.
    pub(crate) refused: Option<Arc<Error>>,
}

/// What is owned, and after which loss.
type Owned = (u64, Assignment);

pub(crate) struct Membership<H> {
    client: Client,
    protocol: Arc<H>,
    member_id: String,
    view: watch::Receiver<View>,
    owned: watch::Sender<Owned>,
    task: JoinHandle<()>,
}

impl<H> Drop for Membership<H> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<H: Heartbeat> Membership<H> {
    /// Begins to join.
    pub(crate) fn join(client: Client, protocol: H, polls: PollWatch) -> Self {
        let protocol = Arc::new(protocol);
        let member_id = Uuid::random().to_string();
        let (views, view) = watch::channel(View::default());
        let (owned, reports) = watch::channel(Owned::default());
        let beats = Beats {
            client: client.clone(),
            protocol: Arc::clone(&protocol),
            member_id: member_id.clone(),
            owned: reports,
            views,
            polls,
        };
        let task = tokio::spawn(beats.run());
        Self { client, protocol, member_id, view, owned, task }
    }

    pub(crate) fn member_id(&self) -> &str {
        &self.member_id
    }

    /// The latest view, or why there will be no other.
    pub(crate) fn view(&mut self) -> Result<View> {
        let view = self.view.borrow_and_update().clone();
        match &view.refused {
            Some(error) => Err(error.duplicate()),
            None => Ok(view),
        }
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.view.borrow().epoch
    }

    /// Resolves when there is a view that was not looked at, or after `timeout`.
    pub(crate) async fn changed(&mut self, timeout: Duration) {
        // Neither end of it matters: the view is looked at next.
        let _ = tokio::time::timeout(timeout, self.view.changed()).await;
    }

    /// Reports what is owned now; `losses` is that of the view which it was made from.
    pub(crate) fn own(&self, losses: u64, assignment: Assignment) {
        self.owned.send_if_modified(|owned| {
            let report = (losses, assignment);
            let news = *owned != report;
            *owned = report;
            news
        });
    }

    /// Ends the heartbeats and leaves.
    pub(crate) async fn leave(self) -> Result<()> {
        self.task.abort();
        // Of a join that was on its way nobody knows here what it came to.
        let joined = self.epoch() != JOIN_EPOCH;
        let epoch = self.protocol.leave_epoch();
        let beat = Beat { member_id: &self.member_id, epoch, full: false, owned: None };
        match self.protocol.beat(&self.client, beat).await {
            Err(error) if joined && !is_fenced(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_fenced(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId))
}

struct Beats<H> {
    client: Client,
    protocol: Arc<H>,
    member_id: String,
    owned: watch::Receiver<Owned>,
    views: watch::Sender<View>,
    polls: PollWatch,
}

impl<H: Heartbeat> Beats<H> {
    async fn run(mut self) {
        let (mut epoch, mut full) = (JOIN_EPOCH, true);
        let mut reported = Assignment::new();
        let mut backoff = Backoff::new(self.client.config());
        while !self.views.is_closed() {
            let owned = self.current();
            let changed = owned != reported;
            let beat = Beat { member_id: &self.member_id, epoch, full, owned: (full || changed).then_some(&owned) };
            match self.protocol.beat(&self.client, beat).await {
                Ok(answer) => {
                    (epoch, full, reported) = (answer.epoch, false, owned);
                    backoff = Backoff::new(self.client.config());
                    let interval = answer.interval.max(INTERVAL_MIN);
                    self.tell(answer);
                    let overdue = tokio::select! {
                        () = tokio::time::sleep(interval) => false,
                        // A report does not wait for its turn. The other end lives as long as this task.
                        _ = self.owned.changed() => false,
                        () = self.polls.overdue() => true,
                    };
                    if overdue {
                        self.pause().await;
                        (epoch, full, reported) = (JOIN_EPOCH, true, Assignment::new());
                    }
                    continue;
                }
                Err(error) if is_fenced(&error) => {
                    tracing::debug!(%error, group = self.protocol.group(), "joining again");
                    (epoch, reported) = (JOIN_EPOCH, Assignment::new());
                    self.lose();
                }
                Err(error) if error.retriable() => {
                    tracing::debug!(%error, group = self.protocol.group(), "no heartbeat");
                    if error.stale_metadata() || matches!(error, Error::Timeout { .. }) {
                        self.client.forget_coordinator(CoordinatorKind::Group, self.protocol.group());
                    }
                }
                Err(error) => {
                    self.views.send_modify(|view| view.refused = Some(Arc::new(error)));
                    return;
                }
            }
            // The broker may have missed anything that was said.
            full = true;
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Leaves until the next poll: nobody has polled for `max.poll.interval.ms`.
    async fn pause(&mut self) {
        let group = self.protocol.group();
        tracing::warn!(group, "leaving the group: the consumer has not polled for max.poll.interval.ms");
        let epoch = self.protocol.leave_epoch();
        let beat = Beat { member_id: &self.member_id, epoch, full: false, owned: None };
        if let Err(error) = self.protocol.beat(&self.client, beat).await {
            tracing::debug!(%error, group, "the group was not told");
        }
        self.lose();
        self.polls.polled().await;
    }

    fn lose(&self) {
        self.views.send_modify(|view| *view = View { losses: view.losses + 1, ..Default::default() });
    }

    /// What was owned before the last loss counts no more.
    fn current(&mut self) -> Assignment {
        let losses = self.views.borrow().losses;
        let (after, owned) = self.owned.borrow_and_update().clone();
        if after == losses { owned } else { Assignment::new() }
    }

    fn tell(&self, answer: Answer) {
        self.views.send_modify(|view| {
            view.epoch = answer.epoch;
            view.answers += 1;
            if let Some(assignment) = answer.assignment {
                view.assignment = Some(Arc::new(assignment));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::ClientConfig;
    use crate::consumer::poll_clock::PollClock;

    /// Epoch, fullness and report of a heartbeat.
    type Seen = (i32, bool, Option<Vec<i32>>);

    struct Script {
        seen: mpsc::UnboundedSender<Seen>,
        answers: Mutex<VecDeque<Result<Answer>>>,
    }

    impl Heartbeat for Script {
        fn group(&self) -> &str {
            "g"
        }

        async fn beat(&self, _: &Client, beat: Beat<'_>) -> Result<Answer> {
            let report = beat.owned.map(|owned| owned.values().flatten().copied().collect());
            self.seen.send((beat.epoch, beat.full, report)).unwrap();
            let answer = self.answers.lock().unwrap().pop_front();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn partitions(list: &[i32]) -> Assignment {
        if list.is_empty() { Assignment::new() } else { [(Uuid::from_u128(7), list.to_vec())].into() }
    }

    fn answer(epoch: i32, assignment: Option<&[i32]>) -> Result<Answer> {
        Ok(Answer { epoch, interval: Duration::from_secs(3_600), assignment: assignment.map(partitions) })
    }

    fn refusal(code: ErrorCode) -> Result<Answer> {
        Err(Error::broker(code, "g", None))
    }

    fn start(answers: Vec<Result<Answer>>) -> (Membership<Script>, mpsc::UnboundedReceiver<Seen>) {
        start_polled(answers, &PollClock::new())
    }

    fn start_polled(
        answers: Vec<Result<Answer>>,
        polls: &PollClock,
    ) -> (Membership<Script>, mpsc::UnboundedReceiver<Seen>) {
        let config = ClientConfig { retry_backoff: Duration::from_millis(1), ..ClientConfig::new("h:1").unwrap() };
        let (seen, beats) = mpsc::unbounded_channel();
        let script = Script { seen, answers: Mutex::new(answers.into()) };
        (Membership::join(Client::new(config), script, polls.watch(Duration::from_millis(20))), beats)
    }

    #[tokio::test]
    async fn reports_do_not_wait_and_are_told_once() {
        let (mut membership, mut beats) = start(vec![answer(4, Some(&[1, 2])), answer(5, None), answer(5, None)]);
        assert_eq!(beats.recv().await, Some((JOIN_EPOCH, true, Some(vec![]))));
        membership.changed(Duration::from_secs(60)).await;
        let view = membership.view().unwrap();
        assert_eq!((view.epoch, view.assignment.as_deref()), (4, Some(&partitions(&[1, 2]))));
        membership.own(0, partitions(&[1, 2]));
        assert_eq!(beats.recv().await, Some((4, false, Some(vec![1, 2]))));
        membership.changed(Duration::from_secs(60)).await;
        // The same once more is no news.
        membership.own(0, partitions(&[1, 2]));
        membership.own(0, partitions(&[2]));
        assert_eq!(beats.recv().await, Some((5, false, Some(vec![2]))));
        assert_eq!(membership.view().unwrap().losses, 0);
    }

    #[tokio::test]
    async fn a_fenced_member_joins_anew_with_nothing() {
        let (mut membership, mut beats) =
            start(vec![answer(4, Some(&[1])), refusal(ErrorCode::FencedMemberEpoch), answer(9, None)]);
        beats.recv().await;
        membership.changed(Duration::from_secs(60)).await;
        membership.own(0, partitions(&[1]));
        assert_eq!(beats.recv().await, Some((4, false, Some(vec![1]))));
        assert_eq!(beats.recv().await, Some((JOIN_EPOCH, true, Some(vec![]))), "what it owned before counts no more");
        while membership.epoch() != 9 {
            membership.changed(Duration::from_secs(60)).await;
        }
        let view = membership.view().unwrap();
        assert_eq!((view.losses, view.assignment), (1, None));
        membership.own(1, partitions(&[3]));
        assert_eq!(beats.recv().await, Some((9, false, Some(vec![3]))));
    }

    #[tokio::test]
    async fn who_does_not_poll_leaves_and_comes_back() {
        let polls = PollClock::new();
        let (mut membership, mut beats) =
            start_polled(vec![answer(4, Some(&[1])), answer(LEAVE_EPOCH, None), answer(6, Some(&[1]))], &polls);
        beats.recv().await;
        membership.changed(Duration::from_secs(60)).await;
        membership.view().unwrap();
        drop(polls.polling());
        assert_eq!(beats.recv().await, Some((LEAVE_EPOCH, false, None)));
        membership.changed(Duration::from_secs(60)).await;
        let view = membership.view().unwrap();
        assert_eq!((view.losses, view.assignment), (1, None));
        let _polling = polls.polling();
        assert_eq!(beats.recv().await, Some((JOIN_EPOCH, true, Some(vec![]))));
    }

    #[tokio::test]
    async fn failures_that_may_pass_are_followed_by_a_full_heartbeat_and_others_are_final() {
        let lost = ErrorCode::CoordinatorLoadInProgress;
        let refused = ErrorCode::InvalidRegularExpression;
        let (mut membership, mut beats) =
            start(vec![refusal(lost), answer(1, Some(&[])), refusal(lost), refusal(refused)]);
        assert_eq!(beats.recv().await, Some((0, true, Some(vec![]))));
        assert_eq!(beats.recv().await, Some((0, true, Some(vec![]))));
        membership.changed(Duration::from_secs(60)).await;
        membership.own(0, partitions(&[1]));
        assert_eq!(beats.recv().await, Some((1, false, Some(vec![1]))));
        assert_eq!(beats.recv().await, Some((1, true, Some(vec![1]))));
        loop {
            match membership.view() {
                Ok(_) => membership.changed(Duration::from_secs(60)).await,
                Err(error) => break assert_eq!(error.code(), Some(refused)),
            }
        }
    }
}
