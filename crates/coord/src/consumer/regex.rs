//! Subscriptions by regular expression: which topics they stand for, and when that is looked up again. Matching takes time
//! linear in the topic's name, and an expression that would take much memory is refused. Answers to the regular expressions
//! of Kafka's `GroupMetadataManager`, which uses RE2/J: a topic matches as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use taccola_wire::error::ErrorCode;

use super::group::{ConsumerGroup, TopicDeltas};
use super::heartbeat::{Env, Refusal};
use super::member::Subscription;
use super::records::{Body, ResolvedRegex};
use crate::cluster_image::ClusterImage;
use crate::outbox::Outbox;

/// Bytes that a compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// How deep groups may be nested: what compiles them recurses, and a thread's stack has to hold it. RE2/J knows no bound, and
/// overflows its stack at some greater depth.
const NESTING_MAX: u32 = 250;
/// Bytes of an expression.
const REGEX_BYTES_MAX: usize = 32 * 1024;

pub(crate) fn compile(regex: &str) -> Result<Regex, Refusal> {
    let refuse = |why: String| Refusal::new(ErrorCode::InvalidRegularExpression, why);
    if regex.len() > REGEX_BYTES_MAX {
        return Err(refuse(format!("a regular expression has at most {REGEX_BYTES_MAX} bytes")));
    }
    let translated = super::re2::translate(regex).map_err(refuse)?;
    RegexBuilder::new(&format!("^(?:{translated})$"))
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| refuse(format!("the regular expression is not valid: {error}")))
}

pub(super) fn resolve(image: &dyn ClusterImage, regex: &Regex, now_ms: i64) -> ResolvedRegex {
    // Not sorted by every image.
    let mut topics: Vec<Arc<str>> = image.topics().map(|t| t.name).filter(|name| regex.is_match(name)).collect();
    topics.sort_unstable();
    topics.dedup();
    ResolvedRegex { topics, version: image.version(), timestamp_ms: now_ms }
}

/// Expressions as they are resolved after this step; `None`: nobody subscribes to it any more.
pub(super) type Overrides = BTreeMap<Arc<str>, Option<Arc<ResolvedRegex>>>;

/// What a step does to the group's expressions.
#[derive(Debug, Default)]
pub(super) struct RegexStep {
    pub(super) overrides: Overrides,
    /// The member's expression is another one, or an expression stands for other topics.
    pub(super) changed: bool,
    pub(super) refreshed: bool,
}

impl RegexStep {
    pub(super) fn resolved<'a>(&'a self, group: &'a ConsumerGroup, regex: &str) -> Option<&'a Arc<ResolvedRegex>> {
        match self.overrides.get(regex) {
            Some(resolved) => resolved.as_ref(),
            None => group.regexes.get(regex),
        }
    }
}

/// Follows a member from one subscription to the next, and looks expressions up again when it is time.
pub(super) fn follow(
    env: &Env<'_>,
    group: &ConsumerGroup,
    old: Option<&Subscription>,
    new: &Subscription,
    deltas: &mut TopicDeltas,
    out: &mut Outbox,
) -> Result<RegexStep, Refusal> {
    let mut step = RegexStep::default();
    let old_regex = old.map(|s| &s.regex).filter(|r| !r.is_empty());
    let changed = old_regex.map_or("", |r| r) != &*new.regex;
    if changed {
        step.changed = true;
        if let Some(regex) = old_regex
            && group.regex_members.get(regex).copied().unwrap_or(0) <= 1
        {
            drop_regex(group, regex, &mut step, deltas, out)?;
        }
        if new.has_regex() && !group.regexes.contains_key(&new.regex) {
            put_regex(env, group, &new.regex, &mut step, deltas, out)?;
        }
    }
    let due_ms = group.regex_refreshed_ms.saturating_add(i64::from(env.config.regex_refresh_interval_ms));
    if !group.regex_members.is_empty() && (group.regex_dirty || env.now_ms >= due_ms) {
        step.refreshed = true;
        for regex in group.regex_members.keys() {
            if !step.overrides.contains_key(regex) {
                put_regex(env, group, regex, &mut step, deltas, out)?;
            }
        }
    }
    Ok(step)
}

/// Resolves an expression and writes it, unless it stands for what it did.
fn put_regex(
    env: &Env<'_>,
    group: &ConsumerGroup,
    regex: &Arc<str>,
    step: &mut RegexStep,
    deltas: &mut TopicDeltas,
    out: &mut Outbox,
) -> Result<(), Refusal> {
    let resolved = Arc::new(resolve(env.image, &compile(regex)?, env.now_ms));
    if let Some(old) = group.regexes.get(regex) {
        if old.topics == resolved.topics {
            return Ok(());
        }
        deltas.add(&old.topics, -1);
    }
    deltas.add(&resolved.topics, 1);
    step.changed = true;
    step.overrides.insert(regex.clone(), Some(resolved.clone()));
    group.write(out, Body::Regex { regex: regex.clone(), value: Some(resolved) })?;
    Ok(())
}

fn drop_regex(
    group: &ConsumerGroup,
    regex: &Arc<str>,
    step: &mut RegexStep,
    deltas: &mut TopicDeltas,
    out: &mut Outbox,
) -> Result<(), ErrorCode> {
    if let Some(old) = group.regexes.get(regex) {
        deltas.add(&old.topics, -1);
        group.write(out, Body::Regex { regex: regex.clone(), value: None })?;
    }
    step.overrides.insert(regex.clone(), None);
    Ok(())
}

/// Whether a topic that came or went changes what an expression of the group stands for.
pub(super) fn concerns(group: &ConsumerGroup, topic: &str, exists: bool) -> bool {
    group.regexes.iter().any(|(regex, resolved)| {
        let has = resolved.topics.binary_search_by(|t| (**t).cmp(topic)).is_ok();
        let wants = exists && compile(regex).is_ok_and(|regex| regex.is_match(topic));
        has != wants
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}a{}", "(".repeat(depth), ")".repeat(depth))
    }

    #[test]
    fn groups_may_be_nested_and_not_without_end() {
        let deep = compile(&nested(NESTING_MAX as usize - 2)).unwrap();
        assert!(deep.is_match("a") && !deep.is_match("b"));
        for depth in [NESTING_MAX as usize, 16_000] {
            assert_eq!(compile(&nested(depth)).unwrap_err().error, ErrorCode::InvalidRegularExpression);
        }
    }
}
