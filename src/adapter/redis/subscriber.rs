//! The tasks of a node's connections: hand on what arrives, notice what may have been missed,
//! restore the subscriptions after a reconnect, and keep what was appended from outliving its use.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::interfaces::{
    ClientLike, EventInterface, KeysInterface, PubsubInterface, StreamsInterface,
};
use fred::types::Builder;
use fred::types::config::{Config, Server};
use fred::types::{Message, Value};
use futures::StreamExt;
use futures::stream;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::super::AdapterError;
use super::frame::{self, Frame};
use super::log::ms;
use super::{
    ALL_CHANNEL, Shared, channel, log_key, newest_key, node_channel, revision_key, session_of,
    text_key,
};
use crate::domain::{GenerationId, SessionId};
use crate::lifecycle::Tasks;
use crate::telemetry::metrics;

/// How often a node pings itself through its subscriptions.
const PING_EVERY: Duration = Duration::from_millis(500);
/// How long Redis may take to answer a ping; after it the node is without Redis.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// How often what was appended to is trimmed and its time to live renewed.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// At most one line in this time says why there is no connection.
const ERRORS_TOLD_EVERY: Duration = Duration::from_secs(10);
/// How many commands of a batch are under way at once.
pub(super) const BATCH: usize = 128;

/// Why connections fail.
type Errors = broadcast::Receiver<(Error, Option<Server>)>;

/// Connects and starts these tasks; waits at most the command timeout for the first connection.
///
/// # Errors
/// What makes every further attempt hopeless: see [`refusal`].
pub(super) async fn start(shared: &Arc<Shared>, tasks: &Tasks) -> Result<(), AdapterError> {
    let errors = shared.commands.error_rx();
    let messages = shared.subscriber.message_rx();
    let reconnects = shared.subscriber.reconnect_rx();
    let commands = shared.commands.reconnect_rx();
    let connections = [shared.commands.connect(), shared.subscriber.connect()];
    let connected = async {
        shared.commands.wait_for_connect().await?;
        shared.subscriber.wait_for_connect().await?;
        shared.subscriber.ssubscribe(node_channel(shared.node)).await?;
        shared.subscriber.ssubscribe(ALL_CHANNEL).await
    };
    let first = async {
        tokio::select! {
            connected = connected => Ok(connected),
            refused = refused(shared.commands.error_rx()) => Err(refused),
        }
    };
    match timeout(shared.options.command_timeout, first).await {
        Ok(Err(refused)) => {
            connections.iter().for_each(JoinHandle::abort);
            return Err(refused);
        }
        Ok(Ok(Ok(()))) => {
            shared.up.store(true, Ordering::Relaxed);
            metrics::handles().redis_up.set(1.0);
        }
        Err(_) if speaks_tls(shared).await => {
            connections.iter().for_each(JoinHandle::abort);
            let source = "it closes connections that do not begin with a handshake".into();
            return Err(AdapterError::Refused { what: "it speaks TLS: rediss://", source });
        }
        Ok(Ok(Err(error))) => tracing::warn!(%error, "Redis is not available; starting degraded"),
        Err(_) => tracing::warn!("Redis does not answer; starting degraded"),
    }

    let stop = tasks.stopping().clone();
    let own = shared.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(hand_on(own, messages)).await;
    });
    let stop = tasks.stopping().clone();
    let own = shared.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(resubscribe(own, reconnects)).await;
    });
    let stop = tasks.stopping().clone();
    let own = shared.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(count(&own, commands)).await;
    });
    let stop = tasks.stopping().clone();
    let own = shared.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(ping(own)).await;
    });
    let stop = tasks.stopping().clone();
    let own = shared.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(check(&own)).await;
    });
    let stop = tasks.stopping().clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(tell_errors(errors)).await;
    });
    Ok(())
}

/// Until a connection is refused for good.
async fn refused(mut errors: Errors) -> AdapterError {
    loop {
        match errors.recv().await {
            Ok((error, _)) => match refusal(&error) {
                Some(what) => return AdapterError::Refused { what, source: Box::new(error) },
                None => continue,
            },
            Err(RecvError::Lagged(_)) => continue,
            // The client is gone: whoever waits for the connection hears of it.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// What is refused, where time will not help. A server that is away, starts, fails over or is cut
/// off is none of it.
fn refusal(error: &Error) -> Option<&'static str> {
    let says = |words: &str| error.details().contains(words);
    match error.kind() {
        ErrorKind::Auth => Some("it refuses the user or the password of REDIS_URL"),
        ErrorKind::Tls => Some("its TLS is refused"),
        // rustls' errors come wrapped like this, and a connection that breaks does not.
        ErrorKind::IO if says("InvalidCertificate") => Some("its certificate is refused"),
        ErrorKind::IO if says("InvalidContentType") => {
            Some("it does not speak TLS: redis:// instead of rediss://?")
        }
        ErrorKind::IO if says("kind: InvalidData") => Some("its TLS is refused"),
        _ => None,
    }
}

/// Whether what a plain connection gets no answer from is there, and wants TLS.
async fn speaks_tls(shared: &Shared) -> bool {
    let url = shared.options.url.expose_secret();
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    if scheme.starts_with("rediss") {
        return false;
    }
    let url = SecretString::from(format!("{}://{rest}", scheme.replacen("redis", "rediss", 1)));
    let Ok(config) = Config::from_url(url.expose_secret()) else { return false };
    let Ok(client) = Builder::from_config(Config { fail_fast: true, ..config }).build() else {
        return false;
    };
    let connection = client.connect();
    let answer = timeout(ANSWERED_WITHIN, client.wait_for_connect()).await;
    connection.abort();
    match answer {
        Ok(Ok(())) => true,
        // These come after a handshake.
        Ok(Err(error)) => {
            *error.kind() == ErrorKind::Auth || error.details().contains("InvalidCertificate")
        }
        Err(_) => false,
    }
}

/// Says now and then why there is no connection.
async fn tell_errors(mut errors: Errors) {
    loop {
        match errors.recv().await {
            Ok((error, _)) => tracing::warn!(%error, "connect to Redis"),
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        }
        sleep(ERRORS_TOLD_EVERY).await;
    }
}

/// Hands on what arrives, in order.
async fn hand_on(shared: Arc<Shared>, mut messages: broadcast::Receiver<Message>) {
    loop {
        match messages.recv().await {
            Ok(message) => receive(&shared, &message),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "subscriptions lag behind; comparing heads");
                dirty(&shared);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn receive(shared: &Shared, message: &Message) {
    let Some(frame) = message.value.as_bytes().and_then(frame::decode) else {
        return shared.garbage.found("channel");
    };
    if matches!(frame, Frame::Chunk(_) | Frame::Event(..) | Frame::Signal(_)) {
        metrics::handles().events_arrived.increment(1);
    }
    match frame {
        // One that was not sent would hide for how long none has come back.
        Frame::Ping(number) if number > shared.pinged.load(Ordering::Relaxed) + 1 => {
            shared.garbage.found("channel");
        }
        Frame::Ping(number) => {
            shared.ponged.fetch_max(number, Ordering::Relaxed);
        }
        Frame::Notice(notice) => {
            // Full: the periodic look into the database finds it.
            if let Some(sinks) = shared.sinks.get() {
                let _ = sinks.notices.try_send(notice);
            }
        }
        Frame::News(news) => {
            if let Some(feed) = shared.feed() {
                feed.news(news);
            }
        }
        Frame::Chunk(chunk) => {
            if let (Some(feed), Some(session)) = (shared.feed(), session_of(&message.channel)) {
                feed.chunk(&session, chunk);
            }
        }
        Frame::Event(position, event) => {
            if let (Some(feed), Some(session)) = (shared.feed(), session_of(&message.channel)) {
                shared.know(&session, position);
                feed.event(&session, position, Arc::new(event));
            }
        }
        Frame::Signal(signal) => {
            if let (Some(feed), Some(session)) = (shared.feed(), session_of(&message.channel)) {
                feed.signal(&session, signal);
            }
        }
    }
}

fn dirty(shared: &Shared) {
    if let Some(feed) = shared.feed() {
        feed.dirty();
    }
}

/// After each reconnect subscribes everything again, and only then lets heads be compared. (fred's
/// own `manage_subscriptions` sends an empty SUBSCRIBE first, fails, and restores nothing.)
async fn resubscribe(shared: Arc<Shared>, mut reconnects: broadcast::Receiver<Server>) {
    loop {
        match reconnects.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        let restored: Vec<SessionId> = shared.state().subscribed.iter().cloned().collect();
        let mut wanted: HashSet<String> = restored.iter().map(channel).collect();
        wanted.extend([node_channel(shared.node), ALL_CHANNEL.to_owned()]);
        while !wanted.is_empty() && reconnects.is_empty() {
            let done: Vec<String> = stream::iter(wanted.iter().cloned())
                .map(|name| async {
                    let subscribed = shared.subscriber.ssubscribe(name.clone()).await;
                    subscribed.is_ok().then_some(name)
                })
                .buffer_unordered(BATCH)
                .filter_map(|done| async { done })
                .collect()
                .await;
            for name in &done {
                wanted.remove(name);
            }
            if !wanted.is_empty() {
                sleep(Duration::from_millis(200)).await;
            }
        }
        let_go(&shared, restored).await;
        dirty(&shared);
    }
}

/// Counts how often the connection for commands is made anew: it may be to another Redis, and what
/// is appended is heard of by no other way than the subscriptions, which may never have been cut.
async fn count(shared: &Shared, mut reconnects: broadcast::Receiver<Server>) {
    loop {
        match reconnects.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        shared.reconnects.fetch_add(1, Ordering::Relaxed);
        dirty(shared);
    }
}

/// Ends the subscriptions of sessions that were let go while they were restored.
async fn let_go(shared: &Shared, restored: Vec<SessionId>) {
    let gone: Vec<SessionId> = {
        let state = shared.state();
        restored.into_iter().filter(|session| !state.subscribed.contains(session)).collect()
    };
    stream::iter(gone)
        .for_each_concurrent(BATCH, |session| async move {
            let _ = shared.subscriber.sunsubscribe(channel(&session)).await;
        })
        .await;
}

/// Twice a second: does Redis answer, and is the node heard, by itself, through its subscriptions?
/// Two pings in a row that do not come back make the tails dirty, and after each four the
/// connection is made anew; that for commands after each three that are not answered.
async fn ping(shared: Arc<Shared>) {
    let mut ticks = interval(PING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut missed, mut unanswered) = (0_u32, 0_u32);
    loop {
        ticks.tick().await;
        let number = shared.pinged.load(Ordering::Relaxed);
        if shared.ponged.load(Ordering::Relaxed) < number {
            missed += 1;
            if missed.is_multiple_of(2) {
                dirty(&shared);
            }
            if missed.is_multiple_of(4) {
                tracing::warn!(missed, "subscriptions are not heard; connecting anew");
                let _ = timeout(PING_EVERY, shared.subscriber.force_reconnection()).await;
            }
        } else {
            missed = 0;
        }
        let sent = shared
            .commands
            .spublish::<u64, _, _>(node_channel(shared.node), frame::ping(number + 1));
        let up = matches!(timeout(ANSWERED_WITHIN, sent).await, Ok(Ok(_)));
        unanswered = if up { 0 } else { unanswered + 1 };
        // A connection that nobody ended may still lead nowhere.
        if unanswered > 0 && unanswered.is_multiple_of(3) && shared.commands.is_connected() {
            tracing::warn!(unanswered, "commands are not answered; connecting anew");
            let _ = timeout(PING_EVERY, shared.commands.force_reconnection()).await;
        }
        if up {
            shared.pinged.store(number + 1, Ordering::Relaxed);
        }
        if shared.up.swap(up, Ordering::Relaxed) != up {
            tracing::warn!(up, "Redis");
            if up {
                shared.renew.notify_one();
            }
        }
        metrics::handles().redis_up.set(f64::from(u8::from(up)));
    }
}

/// Every few seconds: trim and renew what was appended to.
async fn check(shared: &Shared) {
    let mut checks = interval(CHECK_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        let touched = std::mem::take(&mut shared.state().touched);
        stream::iter(touched)
            .for_each_concurrent(BATCH, |(session, texts)| keep(shared, session, texts))
            .await;
    }
}

/// Trims a log and renews its time to live and that of its growing texts.
async fn keep(shared: &Shared, session: SessionId, texts: HashSet<(GenerationId, u32)>) {
    let ttl = i64::try_from(ms(shared.options.log_ttl)).unwrap_or(i64::MAX);
    let log = log_key(&session);
    let cap = ("MAXLEN", "=", i64::try_from(shared.options.log_events_max).unwrap_or(i64::MAX));
    let _: Result<Value, _> = shared.commands.xtrim(log.clone(), cap).await;
    let _: Result<Value, _> = shared.commands.pexpire(log, ttl, None).await;
    let revision = revision_key(&session);
    let _: Result<Value, _> = shared.commands.pexpire(revision, ttl, None).await;
    for (generation, attempt) in texts {
        let key = text_key(&session, generation, attempt);
        let _: Result<Value, _> = shared.commands.pexpire(key, ttl, None).await;
        if attempt > 1 {
            let newest = newest_key(&session, generation);
            let _: Result<Value, _> = shared.commands.pexpire(newest, ttl, None).await;
        }
    }
    let mut state = shared.state();
    if !state.subscribed.contains(&session) && !state.touched.contains_key(&session) {
        state.known.remove(&session);
    }
}
