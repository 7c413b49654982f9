//! How long a message takes from the sender on one node to a reader on another.
//!
//! In each session one socket is on node A, which sends, and one on node B. Both are sockets of
//! this process: one clock. Sending is spread evenly and does not wait for what was sent before,
//! so that a slow moment shows in all that falls into it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgMatches, Command};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Packet, Socket, joined_pair, packet, payload};
use crate::database::{Database, without_limits};
use crate::nodes::{Nodes, address_of};
use crate::options;
use crate::process::{Machine, Process};
use crate::stats::{Spread, rounded};

/// The subcommand's name.
pub const NAME: &str = "send";

/// How many sessions are set up at once.
const SET_UP_AT_ONCE: usize = 16;
/// How long the last message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The subcommand and its options.
pub fn command() -> Command {
    let option = |name, default, help| options::number(name, default, 1, help);
    Command::new(NAME)
        .about("How long message:send takes to message:new on another node")
        .arg(option("sessions", "50", "two sockets each"))
        .arg(option("rate", "200", "messages a second, of all sessions together"))
        .arg(option("seconds", "20", "how long is measured"))
        .arg(option("warm-up", "3", "seconds before that"))
        .arg(option("runs", "1", "how often, each with fresh nodes"))
        .arg(Database::option())
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_REDIS_URL and TEST_DATABASE_URL say what the nodes use.")
}

struct Plan {
    sessions: u32,
    rate: u32,
    seconds: u32,
    warm_up: u32,
    bin: PathBuf,
    redis: String,
    secret: String,
}

/// One run on one database.
#[derive(Debug, Serialize)]
struct Figures {
    database: Database,
    sent: usize,
    /// Sent and not heard, of the whole run.
    missing: usize,
    /// Heard again, of the whole run.
    doubled: usize,
    /// Heard after a later one of the same session, of the whole run.
    out_of_order: usize,
    /// From `message:send` to `message:new` on the other node.
    other_ms: Spread,
    /// From `message:send` to its acknowledgement.
    ack_ms: Spread,
    cpu: BTreeMap<String, f64>,
    others_cores: f64,
}

impl Figures {
    fn is_whole(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.out_of_order == 0
    }

    fn print(&self, plan: &Plan, run: u32) {
        println!(
            "run {run}, {}: {} sessions, {} messages/s, {} s, {} cores",
            self.database.name(),
            plan.sessions,
            plan.rate,
            plan.seconds,
            Machine::cores(),
        );
        println!(
            "  sent {}   missing {}   doubled {}   out of order {}",
            self.sent, self.missing, self.doubled, self.out_of_order
        );
        for (name, spread) in [("other node", self.other_ms), ("acknowledged", self.ack_ms)] {
            let Spread { p50, p90, p99, p999, max } = spread;
            println!(
                "  {name:<14} p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
            );
        }
        for (process, micros) in &self.cpu {
            println!("  {process:<14} {micros:8.0} µs CPU a message");
        }
        println!("  others         {:.2} cores", self.others_cores);
    }
}

/// Measures on each database as often as was asked for. The exit code says whether anything was
/// lost, doubled or out of order.
///
/// # Errors
/// What kept it from measuring.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let number = |name| options::number_of(matches, name);
    let plan = Plan {
        sessions: number("sessions"),
        rate: number("rate"),
        seconds: number("seconds"),
        warm_up: number("warm-up"),
        bin: options::bin_of(matches)?,
        redis: std::env::var("TEST_REDIS_URL")
            .context("TEST_REDIS_URL: run this by dev/services.sh")?,
        secret: "a secret of nothing but load tests".to_owned(),
    };
    let mut all = Vec::new();
    for run in 1..=number("runs") {
        for database in Database::chosen(matches) {
            let figures = measure_started(&plan, database).await?;
            figures.print(&plan, run);
            all.push(figures);
        }
    }
    options::write_out(matches, &all)?;
    let whole = all.iter().all(Figures::is_whole);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure_started(plan: &Plan, database: Database) -> anyhow::Result<Figures> {
    let mut nodes = Nodes::new("[[agent]]\nid = \"bench\"\nprovider = \"scripted\"\n")?;
    let mut settings = BTreeMap::from([
        ("REDIS_URL", plan.redis.clone()),
        ("DATABASE_URL", database.url()?),
        ("JWT_SECRET", plan.secret.clone()),
        ("SHUTDOWN_GRACE", "1s".to_owned()),
    ]);
    settings.extend(without_limits());
    let a = nodes.start("node-a", &plan.bin, &settings)?;
    nodes.ready().await?; // alone, since it brings the database to its schema
    let b = nodes.start("node-b", &plan.bin, &settings)?;
    nodes.ready().await?;
    let figures = measure(plan, database, [a, b]).await;
    nodes.stop().await;
    figures
}

async fn measure(
    plan: &Plan,
    database: Database,
    nodes: [SocketAddr; 2],
) -> anyhow::Result<Figures> {
    let mut processes = vec![
        Process::listening_on("node-a", nodes[0].port())?,
        Process::listening_on("node-b", nodes[1].port())?,
        Process::listening_on("redis", address_of(&plan.redis)?.port())?,
        Process::own("client"),
    ];
    if database == Database::Postgres {
        processes.push(Process::listening_on("postgres", address_of(&database.url()?)?.port())?);
    }
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let sockets: Vec<(u32, String, [Socket; 2])> = stream::iter(0..plan.sessions)
        .map(|session| {
            let name = format!("send-{started}-{session}");
            async move {
                let pair = joined_pair(&plan.secret, nodes, &name).await;
                Ok((session, name.clone(), pair.with_context(|| format!("set up {name}"))?))
            }
        })
        .buffer_unordered(SET_UP_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await
        .map_err(|error: anyhow::Error| error)?;

    let begin = Instant::now();
    let warm_up = Duration::from_secs(u64::from(plan.warm_up));
    let measured = Duration::from_secs(u64::from(plan.seconds));
    let each = plan.rate * (plan.warm_up + plan.seconds) / plan.sessions;
    let gap = Duration::from_secs_f64(f64::from(plan.sessions) / f64::from(plan.rate));
    let deadline = begin + warm_up + measured + PATIENCE;
    let mut tasks = JoinSet::new();
    for (session, name, [a, b]) in sockets {
        let first = begin + gap * session / plan.sessions;
        let times: Vec<Instant> = (0..each).map(|n| first + gap * n).collect();
        let wanted = times.len();
        tasks.spawn(async move { (session, Part::Sender(send(a, name, times, deadline).await)) });
        tasks.spawn(async move { (session, Part::Reader(hear(b, wanted, deadline).await)) });
    }
    sleep_until(begin + warm_up).await;
    let before = Usage::now(&processes)?;
    sleep_until(begin + warm_up + measured).await;
    let after = Usage::now(&processes)?;
    let mut sent: HashMap<u32, Vec<(Instant, Option<Instant>)>> = HashMap::new();
    let mut heard: HashMap<u32, Vec<(usize, Instant)>> = HashMap::new();
    while let Some(ended) = tasks.join_next().await {
        match ended.context("a socket's task")? {
            (session, Part::Sender(times)) => drop(sent.insert(session, times)),
            (session, Part::Reader(times)) => drop(heard.insert(session, times)),
        }
    }
    let within = begin + warm_up..begin + warm_up + measured;
    let (mut other, mut ack) = (Vec::new(), Vec::new());
    let mut figures = Figures {
        database,
        sent: 0,
        missing: 0,
        doubled: 0,
        out_of_order: 0,
        other_ms: Spread::default(),
        ack_ms: Spread::default(),
        cpu: BTreeMap::new(),
        others_cores: 0.0,
    };
    for (session, sent) in &sent {
        let heard = heard.remove(session).unwrap_or_default();
        figures.sent += sent.len();
        figures.out_of_order += heard.windows(2).filter(|pair| pair[1].0 < pair[0].0).count();
        let mut first: HashMap<usize, Instant> = HashMap::new();
        for (number, at) in heard {
            if first.insert(number, at).is_some() {
                figures.doubled += 1;
            }
        }
        for (number, (at, acknowledged)) in sent.iter().enumerate() {
            let Some(there) = first.get(&number) else {
                figures.missing += 1;
                continue;
            };
            if within.contains(at) {
                other.push(there.duration_since(*at).as_secs_f64() * 1e3);
                let acknowledged = acknowledged.map(|to| to.duration_since(*at));
                ack.extend(acknowledged.map(|time| time.as_secs_f64() * 1e3));
            }
        }
    }
    let messages = (plan.rate * plan.seconds) as f64;
    let mut used = 0.0;
    for (process, (before, after)) in processes.iter().zip(before.cpu.iter().zip(&after.cpu)) {
        used += after - before;
        let micros = (after - before) * 1e6 / messages;
        figures.cpu.insert(process.name.clone(), rounded(micros));
    }
    let busy = after.machine.busy - before.machine.busy;
    figures.others_cores = rounded((busy - used).max(0.0) / f64::from(plan.seconds));
    (figures.other_ms, figures.ack_ms) = (Spread::of(other), Spread::of(ack));
    Ok(figures)
}

enum Part {
    /// When each was sent, and acknowledged.
    Sender(Vec<(Instant, Option<Instant>)>),
    /// What was heard, and when.
    Reader(Vec<(usize, Instant)>),
}

/// Sends at the given times; takes what comes back meanwhile.
async fn send(
    mut socket: Socket,
    session: String,
    times: Vec<Instant>,
    deadline: Instant,
) -> Vec<(Instant, Option<Instant>)> {
    let mut sent = Vec::with_capacity(times.len());
    let mut acknowledged = 0;
    // The first acknowledgement of this connection was the join's.
    let mut take = |text: &str, sent: &mut Vec<(Instant, Option<Instant>)>| {
        if let Packet::Ack(ack) = packet(text) {
            let place: Option<&mut (Instant, Option<Instant>)> = sent.get_mut(acknowledged);
            acknowledged += 1;
            if let (Some(place), Ok(())) = (place, crate::client::granted(ack)) {
                place.1 = Some(Instant::now());
            }
        }
        acknowledged
    };
    for (number, at) in times.iter().enumerate() {
        while let Ok(received) = timeout_at(*at, socket.receive()).await {
            let Ok(text) = received else { return sent };
            take(&text, &mut sent);
        }
        let payload = json!({
            "sessionId": session,
            "content": format!("Message {number} of a load test, as long as what people write."),
            "clientMessageId": number.to_string(),
        });
        sent.push((Instant::now(), None));
        if socket.emit("message:send", &payload).await.is_err() {
            return sent;
        }
    }
    let mut count = 0;
    while count < sent.len() {
        let Ok(Ok(text)) = timeout_at(deadline, socket.receive()).await else { break };
        count = take(&text, &mut sent);
    }
    sent
}

/// Hears messages until all are there.
async fn hear(mut socket: Socket, wanted: usize, deadline: Instant) -> Vec<(usize, Instant)> {
    let mut heard = Vec::with_capacity(wanted);
    while heard.len() < wanted {
        let Ok(Ok(text)) = timeout_at(deadline, socket.receive()).await else { break };
        let at = Instant::now();
        let Packet::Event(event) = packet(&text) else { continue };
        let Ok((name, message)) = payload::<Value>(event) else { continue };
        let number = message["clientMessageId"].as_str().and_then(|id| id.parse().ok());
        if let (true, Some(number)) = (name == "message:new", number) {
            heard.push((number, at));
        }
    }
    heard
}

/// CPU time used up so far.
struct Usage {
    cpu: Vec<f64>,
    machine: Machine,
}

impl Usage {
    fn now(processes: &[Process]) -> anyhow::Result<Self> {
        let cpu = processes.iter().map(Process::cpu_seconds).collect::<Result<_, _>>()?;
        Ok(Self { cpu, machine: Machine::now()? })
    }
}
