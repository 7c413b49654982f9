//! How much later a socket on another node gets each chunk than one on the generating node.
//!
//! In each session one socket is on node A, which asks, so that A generates, and one on node B.
//! Both are sockets of this process: one clock, so a difference is exact.

mod figures;
mod listener;
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{Socket, joined_pair};
use crate::nodes::{Nodes, address_of};
use crate::options;
use crate::process::{Machine, Process};

use figures::{Cpu, Figures, Window};
use listener::{Ask, Heard, listen};
use report::Report;

/// The subcommand's name.
pub const NAME: &str = "cross-node";

/// How many sessions are set up at once.
const SET_UP_AT_ONCE: usize = 32;
/// Questions are asked this far apart, so that no two answers begin together.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How much longer than what is measured answers last.
const MARGIN: Duration = Duration::from_secs(1);
/// How much later than it should an answer may end.
const PATIENCE: Duration = Duration::from_secs(15);
/// Reading `/proc` holds up the client for a moment; what it hears this close to it is not counted.
const GUARD: Duration = Duration::from_millis(100);

/// The subcommand and its options.
pub fn command() -> Command {
    let option = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).help(help)
    };
    let number = value_parser!(u32).range(1..);
    Command::new(NAME)
        .about("How much later another node's sockets get each chunk than the generating node's")
        .arg(option("sessions", "500", "one answer and two sockets each").value_parser(number))
        .arg(option("rate", "20", "chunks a second and answer").value_parser(number))
        .arg(option("seconds", "20", "how long is measured").value_parser(number))
        .arg(
            option("warm-up", "3", "seconds before that, once all answers run")
                .value_parser(number),
        )
        .arg(option("stream-delay", "0ms", "STREAM_DELAY of the nodes"))
        .arg(option("runs", "1", "how often, each with fresh nodes").value_parser(number))
        .arg(
            Arg::new("node")
                .long("node")
                .action(ArgAction::Append)
                .value_name("URL")
                .help("a node that is there already, twice: A, B; they need JWT_SECRET as here"),
        )
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_REDIS_URL and TEST_DATABASE_URL say what the nodes use.")
}

/// What is measured.
#[derive(Debug, Clone)]
struct Plan {
    sessions: u32,
    rate: u32,
    seconds: u32,
    warm_up: u32,
    stream_delay: String,
    runs: u32,
    nodes: Option<[SocketAddr; 2]>,
    bin: PathBuf,
    out: Option<PathBuf>,
    redis: String,
    database: String,
    secret: String,
}

impl Plan {
    fn of(matches: &ArgMatches) -> anyhow::Result<Self> {
        let number = |name: &str| matches.get_one::<u32>(name).copied().unwrap_or(1);
        let given: Vec<&String> = matches.get_many("node").unwrap_or_default().collect();
        let nodes = match given[..] {
            [] => None,
            [a, b] => Some([address_of(a)?, address_of(b)?]),
            _ => bail!("--node: none or two"),
        };
        let secret = std::env::var("JWT_SECRET").ok();
        if nodes.is_some() && secret.is_none() {
            bail!("JWT_SECRET: needed with --node, the nodes' own");
        }
        let url = |name: &str| {
            std::env::var(name).with_context(|| format!("{name}: run this by dev/services.sh"))
        };
        Ok(Self {
            sessions: number("sessions"),
            rate: number("rate"),
            seconds: number("seconds"),
            warm_up: number("warm-up"),
            stream_delay: matches.get_one("stream-delay").cloned().unwrap_or_default(),
            runs: number("runs"),
            nodes,
            bin: options::bin_of(matches)?,
            out: matches.get_one("out").cloned(),
            redis: url("TEST_REDIS_URL")?,
            database: url("TEST_DATABASE_URL")?,
            secret: secret.unwrap_or_else(|| "a secret of nothing but load tests".to_owned()),
        })
    }

    /// Over what time the answers begin.
    fn ramp(&self) -> Duration {
        ASK_EVERY * self.sessions
    }

    /// When an answer is asked for, from the first one on: evenly over the ramp, and, by the
    /// golden ratio, over the time between two tokens.
    fn ask_after(&self, session: u32) -> Duration {
        let phase = (f64::from(session) * 0.618_033_988_749_895).fract();
        ASK_EVERY * session + Duration::from_secs_f64(phase / f64::from(self.rate))
    }

    fn answer_lasts(&self) -> Duration {
        self.ramp() + Duration::from_secs(u64::from(self.warm_up + self.seconds)) + MARGIN
    }

    fn tokens(&self) -> u64 {
        (self.answer_lasts().as_secs_f64() * f64::from(self.rate)).ceil() as u64
    }

    fn agents(&self) -> String {
        let rate = self.rate;
        format!("[[agent]]\nid = \"bench\"\nprovider = \"scripted\"\ntokens_per_second = {rate}\n")
    }

    fn settings(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("REDIS_URL", self.redis.clone()),
            ("DATABASE_URL", self.database.clone()),
            ("JWT_SECRET", self.secret.clone()),
            ("STREAM_DELAY", self.stream_delay.clone()),
            ("STREAM_MAX_DURATION", "1h".to_owned()),
            ("MAX_CONCURRENT_STREAMS", "0".to_owned()),
            ("MAX_NODE_STREAMS", "0".to_owned()),
            ("SHUTDOWN_GRACE", "1s".to_owned()),
        ])
    }
}

/// Measures as often as was asked for, and reports. The exit code says whether anything was lost.
///
/// # Errors
/// What kept it from measuring.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let plan = Plan::of(matches)?;
    let mut report = Report::new(&plan);
    for number in 1..=plan.runs {
        let figures = match plan.nodes {
            Some(nodes) => measure(&plan, number, nodes).await?,
            None => measure_started(&plan, number).await?,
        };
        report.add(figures);
    }
    report.end(plan.out.as_deref())?;
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure_started(plan: &Plan, number: u32) -> anyhow::Result<Figures> {
    let mut nodes = Nodes::new(&plan.agents())?;
    let settings = plan.settings();
    let a = nodes.start("node-a", &plan.bin, &settings)?;
    nodes.ready().await?; // alone, since it brings the database to its schema
    let b = nodes.start("node-b", &plan.bin, &settings)?;
    nodes.ready().await?;
    let figures = measure(plan, number, [a, b]).await;
    nodes.stop().await;
    figures
}

/// One run: all sockets are there and have joined before the first question.
async fn measure(plan: &Plan, number: u32, nodes: [SocketAddr; 2]) -> anyhow::Result<Figures> {
    let processes = [
        Process::listening_on("node-a", nodes[0].port())?,
        Process::listening_on("node-b", nodes[1].port())?,
        Process::listening_on("redis", address_of(&plan.redis)?.port())?,
        Process::listening_on("postgres", address_of(&plan.database)?.port())?,
        Process::own("client"),
    ];
    let load_before = Machine::load()?;
    // Sessions outlive a run, and a process of this id may have been here before.
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let sockets: Vec<(u32, String, [Socket; 2])> = stream::iter(0..plan.sessions)
        .map(|session| {
            let name = format!("bench-{started}-{number}-{session}");
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
    let deadline = begin + plan.ramp() + plan.answer_lasts() + PATIENCE;
    let mut listeners = JoinSet::new();
    for (session, name, [a, b]) in sockets {
        let ask = Ask {
            at: begin + plan.ask_after(session),
            payload: serde_json::json!({
                "sessionId": name,
                "prompt": format!("Question {session}"),
                "config": { "maxTokens": plan.tokens() },
            }),
        };
        listeners.spawn(async move { (session, 0, listen(a, Some(ask), begin, deadline).await) });
        listeners.spawn(async move { (session, 1, listen(b, None, begin, deadline).await) });
    }
    let window = watch(plan, &processes, begin).await?;
    let mut heard: Vec<[Heard; 2]> = Vec::new();
    heard.resize_with(plan.sessions as usize, Default::default);
    while let Some(ended) = listeners.join_next().await {
        let (session, socket, had) = ended.context("a listener")?;
        heard[session as usize][socket] = had;
    }
    Ok(Figures::of(&heard, f64::from(plan.rate), window, load_before))
}

/// Waits until all has warmed up, and notes what is used up while it is measured.
async fn watch(plan: &Plan, processes: &[Process], begin: Instant) -> anyhow::Result<Window> {
    let from = begin + plan.ramp() + Duration::from_secs(u64::from(plan.warm_up));
    sleep_until(from).await;
    let before = Usage::now(processes)?;
    sleep_until(from + Duration::from_secs(u64::from(plan.seconds))).await;
    let until = Instant::now();
    let after = Usage::now(processes)?;
    let cpu = processes.iter().zip(before.seconds.iter().zip(&after.seconds)).map(
        |(process, (before, after))| Cpu { process: process.name.clone(), seconds: after - before },
    );
    Ok(Window {
        begin: before.at.duration_since(begin),
        from: before.at.duration_since(begin) + GUARD,
        until: until.duration_since(begin).saturating_sub(GUARD),
        end: until.duration_since(begin),
        cpu: cpu.collect(),
        machine_busy: after.machine.busy - before.machine.busy,
        machine_stolen: after.machine.stolen - before.machine.stolen,
    })
}

/// CPU time used up so far.
struct Usage {
    at: Instant,
    seconds: Vec<f64>,
    machine: Machine,
}

impl Usage {
    fn now(processes: &[Process]) -> anyhow::Result<Self> {
        let seconds = processes.iter().map(Process::cpu_seconds).collect::<Result<_, _>>()?;
        Ok(Self { seconds, machine: Machine::now()?, at: Instant::now() })
    }
}
