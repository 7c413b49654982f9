//! What readers that read slowly cost the others in their room, and the nodes.
//!
//! Three nodes, and one room whose readers are spread over them. Answers stream and messages are
//! sent; in every second phase some readers take a few bytes a second only, until the answer has
//! ended, and then read on. All are sockets of this process: one clock.

mod figures;
mod room;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgMatches, Command};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::client::{Packet, Socket, granted, packet};
use crate::database::{Database, without_limits};
use crate::http::Connection;
use crate::nodes::{Nodes, address_of, free_address};
use crate::options;
use crate::process::Process;
use crate::token::token;

use figures::{Figures, Phase, Seen};
use room::{Room, Watch};

/// The subcommand's name.
pub const NAME: &str = "slow";

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
/// An answer that is not measured, at the beginning: pools and caches fill.
const FIRST: Duration = Duration::from_secs(5);
/// How much later than it should an answer may end for those that read normally.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the slow ones may read on until they have everything.
const READ_ON: Duration = Duration::from_secs(60);
/// How often the nodes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many of its messages the driver leaves unacknowledged before it waits: what a node takes of
/// one socket at once is bounded.
const UNDER_WAY: usize = 32;
/// The most of a page of the history.
const PAGE: usize = 100;

/// The subcommand and its options.
pub fn command() -> Command {
    let option = |name, default, help| options::number(name, default, 1, help);
    Command::new(NAME)
        .about("What readers at 2 KB/s cost the others in their room, and the nodes")
        .arg(option("clients", "200", "in the room, spread over three nodes"))
        .arg(option("slow", "20", "of them, that read slowly in every second phase"))
        .arg(option("pace", "2048", "bytes a second that each of these reads then"))
        .arg(option("rate", "50", "tokens a second"))
        .arg(options::number("messages", "40", 0, "messages a second"))
        .arg(option("seconds", "30", "how long is measured in each phase"))
        .arg(option("warm-up", "10", "seconds before that, of the same answer"))
        .arg(option("rounds", "3", "of two phases: without slow ones, with"))
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_REDIS_URL and TEST_DATABASE_URL say what the nodes use.")
}

/// What is measured.
#[derive(Debug)]
struct Plan {
    clients: u32,
    slow: u32,
    pace: u32,
    rate: u32,
    messages: u32,
    seconds: u32,
    warm_up: u32,
    rounds: u32,
    secret: &'static str,
}

impl Plan {
    fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up.into())
    }

    fn lasts(&self) -> Duration {
        self.warm_up() + Duration::from_secs(self.seconds.into())
    }

    fn tokens(&self, lasts: Duration) -> u64 {
        lasts.as_secs() * u64::from(self.rate)
    }
}

/// Measures. The exit code says whether anything was lost, doubled or out of order.
///
/// # Errors
/// What kept it from measuring.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let number = |name| options::number_of(matches, name);
    let plan = Plan {
        clients: number("clients"),
        slow: number("slow"),
        pace: number("pace"),
        rate: number("rate"),
        messages: number("messages"),
        seconds: number("seconds"),
        warm_up: number("warm-up"),
        rounds: number("rounds"),
        secret: "a secret of nothing but load tests",
    };
    if plan.slow >= plan.clients {
        bail!("--slow: less than --clients");
    }
    let bin: PathBuf = options::bin_of(matches)?;
    let redis =
        std::env::var("TEST_REDIS_URL").context("TEST_REDIS_URL: run this by dev/services.sh")?;
    let database = Database::Postgres.url()?;
    let agent = format!(
        "[[agent]]\nid = \"bench\"\nprovider = \"scripted\"\ntokens = 100000\n\
         tokens_per_second = {}\n",
        plan.rate
    );
    let mut nodes = Nodes::new(&agent)?;
    let (mut addresses, mut metrics) = (Vec::new(), Vec::new());
    for name in NODES {
        let metrics_at = free_address()?;
        let mut settings = BTreeMap::from([
            ("REDIS_URL", redis.clone()),
            ("DATABASE_URL", database.clone()),
            ("JWT_SECRET", plan.secret.to_owned()),
            ("SHUTDOWN_GRACE", "1s".to_owned()),
            ("METRICS_PORT", metrics_at.port().to_string()),
            ("CONTEXT_MESSAGES", "1".to_owned()),
        ]);
        settings.extend(without_limits());
        addresses.push(nodes.start(name, &bin, &settings)?);
        metrics.push(metrics_at);
        nodes.ready().await?; // one by one, since the first brings the database to its schema
    }
    let measured = measure(&plan, &addresses, &metrics, &redis, &database).await;
    nodes.stop().await;
    let figures = measured?;
    figures.print(&plan);
    options::write_out(matches, &figures)?;
    Ok(if figures.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(
    plan: &Plan,
    nodes: &[SocketAddr],
    metrics: &[SocketAddr],
    redis: &str,
    database: &str,
) -> anyhow::Result<Figures> {
    let mut processes = Vec::new();
    for (name, node) in NODES.iter().zip(nodes) {
        processes.push(Process::listening_on(name, node.port())?);
    }
    let others = [
        Process::listening_on("redis", address_of(redis)?.port())?,
        Process::listening_on("postgres", address_of(database)?.port())?,
        Process::own("client"),
    ];
    let watch = Watch::new(processes, others.into(), metrics.to_vec());
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let session = format!("slow-{started}");
    let jwt = token(plan.secret, "slow-readers");
    let mut driver = Driver::new(nodes[0], &jwt, &session).await?;
    let empty = watch.resident()?;
    let room = Room::open(plan, nodes, &jwt, &session).await?;
    let mut seen = Seen { empty, ..Seen::default() };

    driver.answer(plan, FIRST).await?;
    room.finish(&driver, None, Instant::now() + PATIENCE).await;
    seen.idle = watch.resident()?;
    for round in 1..=plan.rounds {
        for is_slow in [false, true] {
            if is_slow {
                room.pace.set(plan.pace);
            }
            let begin = Instant::now();
            let measured = begin + plan.warm_up()..begin + plan.lasts();
            let first = driver.sent.len();
            let watching = watch.look(measured.clone());
            let (message, looked) = tokio::join!(driver.answer(plan, plan.lasts()), watching);
            let message = message?;
            room.finish(&driver, Some(false), Instant::now() + PATIENCE).await;
            let end = watch.resident()?;
            let resumed = Instant::now();
            room.pace.set(0);
            room.finish(&driver, Some(true), resumed + READ_ON).await;
            let read_on = is_slow.then(|| resumed.elapsed());
            let messages = first..driver.sent.len();
            let phase = Phase {
                round,
                is_slow,
                message,
                messages,
                measured,
                looked: looked?,
                end,
                read_on,
            };
            println!("{}", phase.line());
            seen.phases.push(phase);
        }
    }
    seen.peak = watch.peak()?;
    seen.disconnects = watch.disconnects().await?;
    seen.stored = stored(nodes[2], &jwt, &session).await?;
    Ok(Figures::of(plan, &seen, &driver.sent, &room.close()))
}

/// What the store has of the session, from its beginning on.
async fn stored(node: SocketAddr, jwt: &str, session: &str) -> anyhow::Result<Vec<Value>> {
    let mut http = Connection::open(node, jwt).await?;
    let mut all: Vec<Value> = Vec::new();
    loop {
        let offset = all.len();
        let path = format!("/api/chat/sessions/{session}/messages?limit={PAGE}&offset={offset}");
        let mut page = http.get(&path).await?;
        let Value::Array(mut messages) = page["messages"].take() else { bail!("{path}: {page}") };
        // Pages are counted from the newest, and each is in the order of time.
        messages.append(&mut all);
        all = messages;
        if page["hasMore"] != true {
            return Ok(all);
        }
    }
}

/// Who asks and sends; hears what all hear, and notes nothing of it.
struct Driver {
    socket: Socket,
    session: String,
    /// When each message was sent.
    sent: Vec<Instant>,
    /// The messages that the answers become.
    answers: Vec<String>,
    under_way: usize,
}

impl Driver {
    async fn new(node: SocketAddr, jwt: &str, session: &str) -> anyhow::Result<Self> {
        let mut socket = Socket::connect(node, jwt).await?;
        socket.call("session:join", &json!({ "sessionId": session })).await?;
        let session = session.to_owned();
        Ok(Self { socket, session, sent: Vec::new(), answers: Vec::new(), under_way: 0 })
    }

    /// One answer, and messages as long as it lasts. Gives the message that the answer becomes.
    async fn answer(&mut self, plan: &Plan, lasts: Duration) -> anyhow::Result<String> {
        let begin = Instant::now();
        let question = json!({
            "sessionId": self.session,
            "prompt": format!("Question {}", self.answers.len()),
            "config": { "maxTokens": plan.tokens(lasts) },
        });
        self.socket.emit("stream:request", &question).await?;
        let mut message = None;
        let count = u64::from(plan.messages) * lasts.as_secs();
        for n in 0..count {
            let at = begin + Duration::from_secs_f64(n as f64 / f64::from(plan.messages));
            self.listen(at, &mut message).await?;
            while self.under_way >= UNDER_WAY {
                self.receive(&mut message).await?;
            }
            let number = self.sent.len();
            let payload = json!({
                "sessionId": self.session,
                "content": format!("Message {number} of a load test, as long as what people write."),
                "clientMessageId": number.to_string(),
            });
            self.sent.push(Instant::now());
            self.socket.emit("message:send", &payload).await?;
            self.under_way += 1;
        }
        self.listen(begin + lasts, &mut message).await?;
        let message = message.context("the question was not acknowledged")?;
        self.answers.push(message.clone());
        Ok(message)
    }

    /// Takes what comes until then.
    async fn listen(&mut self, until: Instant, message: &mut Option<String>) -> anyhow::Result<()> {
        while let Ok(received) = timeout_at(until, self.receive(message)).await {
            received?;
        }
        Ok(())
    }

    /// Takes one packet. Cancel safe.
    async fn receive(&mut self, message: &mut Option<String>) -> anyhow::Result<()> {
        let text = self.socket.receive().await?;
        let Packet::Ack(ack) = packet(&text) else { return Ok(()) };
        granted(ack)?;
        let said: Value = serde_json::from_str(ack).context("read an acknowledgement")?;
        // Those of messages have no `streamId`.
        match (said[0]["streamId"].as_str(), said[0]["messageId"].as_str()) {
            (Some(_), Some(id)) => *message = Some(id.to_owned()),
            _ => self.under_way = self.under_way.saturating_sub(1),
        }
        Ok(())
    }
}
