//! How fast whoever joins in the middle of a long answer has all of it so far, in how many events
//! and bytes.
//!
//! Three nodes. A reader is on the one that generates and one on the second; the third has none and
//! forgets a session as soon as nobody reads it there, so that each join opens it anew. Joins are
//! spread evenly over the answer, one after the other, over the nodes in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgMatches, Command};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::client::{Packet, Socket, granted, packet};
use crate::database::{Database, without_limits};
use crate::http::Connection;
use crate::nodes::Nodes;
use crate::options;
use crate::process::Machine;
use crate::stats::{Spread, rounded};
use crate::token::token;
use crate::transcript::{Piece, Transcript};

/// The subcommand's name.
pub const NAME: &str = "late-join";

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
/// What the three nodes are to whoever joins there.
const KINDS: [&str; 3] = ["generating", "reading", "opened"];
/// How long one join may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of so many joins on the nodes that are read anyway, one stays to the end.
const STAYS: u32 = 10;
/// Live chunks that a joiner hears after what it came for.
const LIVE: usize = 2;
/// The last join begins so long before the end, as a share of the answer.
const UNTIL: f64 = 0.97;
/// What an event may have beside the text.
const BYTES_BESIDE: f64 = 1024.0;
/// What the text may be in an event, by what it is as JSON.
const BYTES_TIMES: f64 = 1.1;
/// How many reasons are told.
const REASONS_MAX: usize = 5;

/// The subcommand and its options.
pub fn command() -> Command {
    let option = |name, default, least, help| options::number(name, default, least, help);
    Command::new(NAME)
        .about("How fast whoever joins in the middle of a long answer has it")
        .arg(option("tokens", "10000", 100, "of the answer"))
        .arg(option("seconds", "60", 1, "how long it lasts"))
        .arg(option("joins", "300", 3, "spread over it, on three nodes in turn"))
        .arg(option("answers", "1", 1, "one after the other"))
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_REDIS_URL and TEST_DATABASE_URL say what the nodes use.")
}

#[derive(Debug)]
struct Plan {
    tokens: u32,
    seconds: u32,
    joins: u32,
    answers: u32,
}

/// What one join brought.
struct Join {
    /// Which of [`KINDS`].
    kind: usize,
    /// From `session:join` until all was there that another reader had by then.
    ms: f64,
    /// How many events brought it.
    events: usize,
    /// Their packets.
    bytes: usize,
    /// What they brought.
    text: String,
    /// Text out of place.
    out_of_place: u64,
}

/// Of the joins on one node.
#[derive(Debug, Serialize)]
struct Kind {
    kind: &'static str,
    joins: usize,
    /// From `session:join` to the event with the text so far.
    ms: Spread,
}

#[derive(Debug, Serialize)]
struct Figures {
    benchmark: &'static str,
    cores: usize,
    tokens: u32,
    seconds: u32,
    joins: usize,
    all_ms: Spread,
    kinds: Vec<Kind>,
    /// Joins to which one event brought what was there, and the most events that it took.
    by_one_event: usize,
    events_max: usize,
    /// Joins that took more than 1.1 × the text as JSON and 1 KiB, and the most that there was
    /// beside the text as JSON.
    too_many_bytes: usize,
    bytes_beside_max: i64,
    /// As a share of what is allowed.
    bytes_share_max: f64,
    /// The longest text that was caught up with, as JSON.
    text_bytes_max: usize,
    /// The whole machine, this process included.
    busy_cores: f64,
    /// Text that did not begin where the text before ended,
    out_of_place: u64,
    /// joiners that did not have what is stored,
    wrong: usize,
    /// and those that failed.
    failed: usize,
    reasons: Vec<String>,
}

impl Figures {
    fn is_whole(&self) -> bool {
        self.out_of_place == 0 && self.wrong + self.failed == 0 && self.by_one_event == self.joins
    }

    fn print(&self) {
        println!(
            "{} joins of answers of {} tokens in {} s, 3 nodes, {:.2} of {} cores busy",
            self.joins, self.tokens, self.seconds, self.busy_cores, self.cores
        );
        let kinds = self.kinds.iter().map(|kind| (kind.kind, kind.ms));
        for (name, Spread { p50, p90, p99, p999, max }) in kinds.chain([("all", self.all_ms)]) {
            println!(
                "  {name:<12} p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
            );
        }
        println!(
            "  by one event {} of {} (at most {} events)   too many bytes {} (at most {:.3} of the allowed, {} beside {} of text)",
            self.by_one_event,
            self.joins,
            self.events_max,
            self.too_many_bytes,
            self.bytes_share_max,
            self.bytes_beside_max,
            self.text_bytes_max,
        );
        println!(
            "  out of place {}   wrong {}   failed {}",
            self.out_of_place, self.wrong, self.failed
        );
        for reason in &self.reasons {
            println!("    {reason}");
        }
    }
}

/// Measures. The exit code says whether every joiner was brought what it lacked in one event, and
/// nothing was lost, doubled or out of order.
///
/// # Errors
/// What kept it from measuring.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let number = |name| options::number_of(matches, name);
    let plan = Plan {
        tokens: number("tokens"),
        seconds: number("seconds"),
        joins: number("joins"),
        answers: number("answers"),
    };
    let bin = options::bin_of(matches)?;
    let redis =
        std::env::var("TEST_REDIS_URL").context("TEST_REDIS_URL: run this by dev/services.sh")?;
    let secret = "a secret of nothing but load tests";
    let agent = format!(
        "[[agent]]\nid = \"bench\"\nprovider = \"scripted\"\ntokens = {}\ntokens_per_second = {}\n",
        plan.tokens,
        f64::from(plan.tokens) / f64::from(plan.seconds)
    );
    let mut nodes = Nodes::new(&agent)?;
    let mut addresses = Vec::new();
    for (name, kind) in NODES.into_iter().zip(KINDS) {
        let mut settings = BTreeMap::from([
            ("REDIS_URL", redis.clone()),
            ("DATABASE_URL", Database::Postgres.url()?),
            ("JWT_SECRET", secret.to_owned()),
            ("SHUTDOWN_GRACE", "1s".to_owned()),
        ]);
        settings.extend(without_limits());
        if kind == "opened" {
            settings.insert("TAIL_LINGER", "0s".to_owned());
        }
        addresses.push(nodes.start(name, &bin, &settings)?);
        nodes.ready().await?; // one by one, since the first brings the database to its schema
    }
    let mut all = Vec::new();
    let (machine, begin) = (Machine::now()?, Instant::now());
    for _ in 0..plan.answers {
        all.push(answer(&plan, &addresses, &token(secret, "late-joiner")).await?);
    }
    let busy = (Machine::now()?.busy - machine.busy) / begin.elapsed().as_secs_f64();
    nodes.stop().await;
    let figures = figures(&plan, all, busy);
    figures.print();
    options::write_out(matches, &figures)?;
    Ok(if figures.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of one answer.
struct Joined {
    joins: Vec<Join>,
    failed: Vec<String>,
    /// Whoever stayed to the end, and the two that were there from the beginning.
    stayed: Vec<(Transcript, Option<String>)>,
    stored: String,
}

async fn answer(plan: &Plan, nodes: &[SocketAddr], jwt: &str) -> anyhow::Result<Joined> {
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let session = format!("late-{started}");
    let join = json!({ "sessionId": session });
    let end = Instant::now() + Duration::from_secs(u64::from(plan.seconds)) + PATIENCE;
    let mut staying = JoinSet::new();
    let mut reader = Socket::connect(nodes[1], jwt).await?;
    reader.call("session:join", &join).await?;
    staying.spawn(to_the_end(reader, Heard::default(), end));
    let mut asker = Socket::connect(nodes[0], jwt).await?;
    asker.call("session:join", &join).await?;
    let question = json!({ "sessionId": session, "prompt": "Tell me everything" });
    asker.emit("stream:request", &question).await?;
    let known = Heard::default();
    staying.spawn(to_the_end(asker, known.clone(), end));
    while known.transcript().answers.is_empty() {
        if Instant::now() > end {
            bail!("no answer");
        }
        sleep(Duration::from_millis(10)).await;
    }

    let begin = Instant::now();
    let gap = Duration::from_secs(u64::from(plan.seconds)).mul_f64(UNTIL) / plan.joins;
    let (mut joins, mut failed) = (Vec::new(), Vec::new());
    for n in 0..plan.joins {
        let kind = n as usize % KINDS.len();
        let mut socket = Socket::connect(nodes[kind], jwt).await?;
        sleep_until(begin + gap * n).await;
        let heard = Heard::default();
        let joining = timeout(PATIENCE, late(&mut socket, &join, &heard, &known, kind));
        match joining.await.map_err(anyhow::Error::from).flatten() {
            Ok(join) => joins.push(join),
            Err(error) => failed.push(format!("{} join {n}: {error:#}", KINDS[kind])),
        }
        if kind != 2 && (n / KINDS.len() as u32).is_multiple_of(STAYS) {
            staying.spawn(to_the_end(socket, heard, end));
        } else if timeout(PATIENCE, socket.call("session:leave", &join)).await.is_err() {
            failed.push(format!("{} join {n}: could not leave", KINDS[kind]));
        }
    }
    let mut stayed = Vec::new();
    while let Some(heard) = staying.join_next().await {
        stayed.push(heard.context("a reader's task")?);
    }
    let path = format!("/api/chat/sessions/{session}/messages");
    let page = Connection::open(nodes[2], jwt).await?.get(&path).await?;
    let messages = page["messages"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = messages.iter().find(|message| message["role"] == "assistant");
    let stored = stored.and_then(|message| message["content"].as_str());
    let stored = stored.context("the answer is not stored")?.to_owned();
    Ok(Joined { joins, failed, stayed, stored })
}

/// What a reader has heard so far.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Transcript>>);

impl Heard {
    fn transcript(&self) -> MutexGuard<'_, Transcript> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, text: &str) -> anyhow::Result<()> {
        let at = Instant::now();
        match packet(text) {
            Packet::Event(event) => self.transcript().take(event, text.len(), at),
            Packet::Ack(ack) => granted(ack),
            Packet::Other => Ok(()),
        }
    }

    /// Where the text ends so far, in UTF-16 code units.
    fn end(&self) -> u64 {
        self.transcript().answers.first().map_or(0, |answer| answer.end())
    }
}

/// Joins, and hears what it lacked and a little more. `known` has what there is by now, at least.
async fn late(
    socket: &mut Socket,
    join: &Value,
    heard: &Heard,
    known: &Heard,
    kind: usize,
) -> anyhow::Result<Join> {
    let so_far = known.end();
    let sent = Instant::now();
    socket.emit("session:join", join).await?;
    loop {
        heard.take(&socket.receive().await?)?;
        let transcript = heard.transcript();
        let Some(answer) = transcript.answers.first() else { continue };
        let is_caught_up = |piece: &&Piece| piece.from < so_far;
        let brought: Vec<&Piece> = answer.pieces.iter().take_while(is_caught_up).collect();
        let is_live = answer.pieces.len() >= brought.len() + LIVE || answer.is_complete;
        let Some(last) = brought.last().filter(|last| last.end >= so_far && is_live) else {
            continue;
        };
        return Ok(Join {
            kind,
            ms: last.at.duration_since(sent).as_secs_f64() * 1e3,
            events: brought.len(),
            bytes: brought.iter().map(|piece| piece.bytes).sum(),
            text: answer.text_to(last.end),
            out_of_place: transcript.out_of_place,
        });
    }
}

/// Listens to the end of the answer.
async fn to_the_end(
    mut socket: Socket,
    heard: Heard,
    deadline: Instant,
) -> (Transcript, Option<String>) {
    let listening = async {
        while !heard.transcript().answers.first().is_some_and(|answer| answer.is_complete) {
            heard.take(&socket.receive().await?)?;
        }
        anyhow::Ok(())
    };
    let error = match timeout_at(deadline, listening).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("the answer did not end in time".to_owned()),
    };
    (std::mem::take(&mut *heard.transcript()), error)
}

fn figures(plan: &Plan, answers: Vec<Joined>, busy: f64) -> Figures {
    let mut reasons = Vec::new();
    let (mut wrong, mut out_of_place, mut failed) = (0, 0, 0);
    let mut joins = Vec::new();
    for joined in answers {
        failed += joined.failed.len();
        reasons.extend(joined.failed);
        for join in &joined.joins {
            wrong += usize::from(!joined.stored.starts_with(&join.text));
            out_of_place += join.out_of_place;
        }
        for (transcript, error) in joined.stayed {
            let is_right = transcript.answers.first().is_some_and(|a| a.text == joined.stored);
            wrong += usize::from(!is_right);
            out_of_place += transcript.out_of_place;
            reasons.extend(error);
        }
        joins.extend(joined.joins);
    }
    reasons.truncate(REASONS_MAX);
    let encoded = |join: &Join| Value::from(join.text.as_str()).to_string().len();
    let share =
        |join: &Join| join.bytes as f64 / (BYTES_TIMES * encoded(join) as f64 + BYTES_BESIDE);
    let times = |kind: Option<usize>| -> Vec<f64> {
        let wanted = joins.iter().filter(|join| kind.is_none_or(|kind| kind == join.kind));
        wanted.map(|join| join.ms).collect()
    };
    let of_kind = |kind: usize| {
        let times = times(Some(kind));
        Kind { kind: KINDS[kind], joins: times.len(), ms: Spread::of(times) }
    };
    Figures {
        benchmark: NAME,
        cores: Machine::cores(),
        tokens: plan.tokens,
        seconds: plan.seconds,
        joins: joins.len(),
        all_ms: Spread::of(times(None)),
        kinds: (0..KINDS.len()).map(of_kind).collect(),
        by_one_event: joins.iter().filter(|join| join.events == 1).count(),
        events_max: joins.iter().map(|join| join.events).max().unwrap_or_default(),
        too_many_bytes: joins.iter().filter(|join| share(join) > 1.0).count(),
        bytes_beside_max: joins
            .iter()
            .map(|join| join.bytes as i64 - encoded(join) as i64)
            .max()
            .unwrap_or_default(),
        bytes_share_max: rounded(joins.iter().map(share).fold(0.0, f64::max)),
        text_bytes_max: joins.iter().map(encoded).max().unwrap_or_default(),
        busy_cores: rounded(busy),
        out_of_place,
        wrong,
        failed,
        reasons,
    }
}
