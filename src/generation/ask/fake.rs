//! Providers that do as they are told, and someone who listens.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::super::voice::{Pipeline, PipelineStage, Solo, Voice, Voices};
use super::{Question, SAID_MAX, Said, ask};
use crate::domain::{
    AgentId, Aside, Error, GenerationConfig, OnTakeover, Stage, StopReason, Usage,
};
use crate::llm::{Delta, Deltas, Provider, ProviderError, Request, Speaker, Turn};

/// The longest wait of every agent here.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What a provider does next.
#[derive(Debug)]
pub enum Step {
    /// Does not accept the request. First only.
    Refuse(ProviderError),
    /// Lets the request wait. First only.
    Stall,
    Say(&'static str),
    SayAll(String),
    Think(&'static str),
    /// Input, output and cached tokens so far.
    Cost(u64, u64, u64),
    Wait(Duration),
    Fail(ProviderError),
    Done,
    /// Nothing comes any more.
    Hang,
}

/// The steps of one answer.
pub type Answer = Vec<Step>;

/// A whole answer of one word.
pub fn says(text: &'static str) -> Answer {
    vec![Step::Say(text), Step::Done]
}

pub fn refuses(error: ProviderError) -> Answer {
    vec![Step::Refuse(error)]
}

pub fn overloaded(retry_after: Option<Duration>) -> ProviderError {
    ProviderError::Overloaded { retry_after }
}

/// A provider with an answer for each time it is asked.
pub struct Fake {
    id: &'static str,
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(Instant, Request)>>,
    open: Arc<AtomicUsize>,
}

/// An upstream connection, until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fake {
    /// How often it was asked.
    pub fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// What it was asked, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.asked.lock().unwrap().iter().map(|(_, request)| request.clone()).collect()
    }

    /// The time between being asked and being asked again.
    pub fn pauses(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    /// How many upstream connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Provider for Fake {
    fn id(&self) -> &'static str {
        self.id
    }

    async fn stream(&self, request: &Request) -> Result<Deltas, ProviderError> {
        self.asked.lock().unwrap().push((Instant::now(), request.clone()));
        let mut answer = self.answers.lock().unwrap().pop_front().expect("it has an answer");
        let open = Open::new(&self.open);
        match answer.first() {
            Some(Step::Stall) => return std::future::pending().await,
            Some(Step::Refuse(_)) => {
                let Step::Refuse(error) = answer.remove(0) else { unreachable!() };
                return Err(error);
            }
            _ => {}
        }
        let steps = VecDeque::from(answer);
        let deltas = stream::unfold((steps, open), |(mut steps, open)| async move {
            let delta = loop {
                break match steps.pop_front()? {
                    Step::Say(text) => Ok(Delta::Text(text.to_owned())),
                    Step::SayAll(text) => Ok(Delta::Text(text)),
                    Step::Think(text) => {
                        Ok(Delta::Aside(Aside::Thinking { text: text.to_owned() }))
                    }
                    Step::Cost(input_tokens, output_tokens, cached_tokens) => {
                        Ok(Delta::Usage(Usage { input_tokens, output_tokens, cached_tokens }))
                    }
                    Step::Fail(error) => Err(error),
                    Step::Done => Ok(Delta::Done(StopReason::EndTurn)),
                    Step::Wait(time) => {
                        sleep(time).await;
                        continue;
                    }
                    Step::Hang => std::future::pending().await,
                    Step::Refuse(_) | Step::Stall => panic!("first only"),
                };
            };
            Some((delta, (steps, open)))
        });
        Ok(deltas.boxed())
    }
}

/// Who can be asked.
#[derive(Default)]
pub struct Cast {
    voices: HashMap<AgentId, Voice>,
}

impl Cast {
    /// An agent with a provider of its own, called as the agent is.
    pub fn agent(&mut self, id: &'static str, answers: Vec<Answer>) -> Arc<Fake> {
        self.agent_with(id, None, answers)
    }

    /// The same with a fallback.
    pub fn agent_with(
        &mut self,
        id: &'static str,
        fallback: Option<&str>,
        answers: Vec<Answer>,
    ) -> Arc<Fake> {
        let fake = Arc::new(Fake {
            id,
            answers: Mutex::new(answers.into()),
            asked: Mutex::default(),
            open: Arc::default(),
        });
        let solo = Solo {
            provider: fake.clone(),
            model: format!("model of {id}"),
            system: Some(format!("You are {id}.")),
            temperature: None,
            max_tokens: Some(7),
            timeout: TIMEOUT,
            on_takeover: OnTakeover::Continue,
            fallback: fallback.map(agent),
        };
        self.voices.insert(agent(id), Voice::Solo(solo));
        fake
    }

    /// The pipeline `p`: of each stage its name, agents, and whether it is a gate.
    pub fn pipeline(&mut self, stages: &[(&str, &[&str], bool)]) {
        let stages = stages.iter().map(|(name, agents, gate)| PipelineStage {
            name: (*name).to_owned(),
            agents: agents.iter().map(|id| agent(id)).collect(),
            gate: *gate,
        });
        self.voices.insert(agent("p"), Voice::Pipeline(Pipeline { stages: stages.collect() }));
    }

    pub fn voices(self) -> Voices {
        Voices::new(self.voices)
    }
}

pub fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

/// A question of one turn.
pub fn question(of: &str) -> Question {
    Question {
        agent: agent(of),
        config: GenerationConfig::default(),
        turns: vec![Turn { speaker: Speaker::User, content: "why?".to_owned() }],
        partial: None,
        stages: Vec::new(),
    }
}

/// Asks and listens: all that was said, and how it ended.
pub async fn listen(voices: &Voices, question: Question) -> (Vec<Said>, Result<StopReason, Error>) {
    let (say, mut said) = mpsc::channel(SAID_MAX);
    let heard = async {
        let mut all = Vec::new();
        while let Some(said) = said.recv().await {
            all.push(said);
        }
        all
    };
    let (end, all) = tokio::join!(ask(voices, question, say), heard);
    (all, end)
}

/// The text that was said.
pub fn text(said: &[Said]) -> String {
    let texts = said.iter().filter_map(|said| match said {
        Said::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// How often something failed.
pub fn failures(said: &[Said]) -> usize {
    said.iter().filter(|said| **said == Said::Failed).count()
}

/// The last sum.
pub fn cost(said: &[Said]) -> Option<Usage> {
    said.iter().rev().find_map(|said| match said {
        Said::Usage(usage) => Some(*usage),
        _ => None,
    })
}

/// The stages that were told of: index, and what was said where it is over.
pub fn stages(said: &[Said]) -> Vec<(u32, Option<Vec<String>>)> {
    let stages = said.iter().filter_map(|said| match said {
        Said::Stage(Stage { index, said, .. }) => Some((*index, said.clone())),
        _ => None,
    });
    stages.collect()
}
