//! Runs a scenario: a table, what each of a few threads does with it, and what must hold afterwards.

use std::{
    boxed::Box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    vec::Vec,
};

use loom::{model::Builder, thread};

use super::{
    Host,
    flows::{self, Result},
    host::assert_sound,
    model::{Fault, Model, View, Written},
};
use crate::{abi::FlowKey, table::Work};

type Part = Box<dyn Fn(&View<'_>) -> Option<Result> + Send + Sync>;

/// What happens at once.
pub(super) struct Scenario {
    table: Host,
    parts: Vec<Part>,
    fault: Fault,
    preemptions: usize,
}

impl Scenario {
    /// On this table, and so far nothing happens.
    pub(super) const fn on(table: Host) -> Self {
        Self {
            table,
            parts: Vec::new(),
            fault: Fault::None,
            preemptions: 3,
        }
    }

    /// A thread that makes a flow.
    pub(super) fn insert(self, key: FlowKey, over: u64, binding: Work) -> Self {
        self.part(move |view| Some(flows::insert(&view, &key, over, &binding)))
    }

    /// A thread that does something and makes no flow.
    pub(super) fn does(self, part: impl Fn(&View<'_>) + Send + Sync + 'static) -> Self {
        self.part(move |view| {
            part(view);
            None
        })
    }

    fn part(mut self, part: impl Fn(&View<'_>) -> Option<Result> + Send + Sync + 'static) -> Self {
        self.parts.push(Box::new(part));
        self
    }

    /// Something is broken.
    pub(super) fn with(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// At most so many times a thread is interrupted where it could go on.
    pub(super) fn preemptions(mut self, most: usize) -> Self {
        self.preemptions = most;
        self
    }

    /// Runs every interleaving; `check` gets the words afterwards and what the inserts came to, in their order.
    ///
    /// First without interruptions, one thread after the other in each order, which shows most of the words that are
    /// written; then again until no other word was.
    pub(super) fn explore(self, check: impl Fn(&[u64], &[Result]) + Send + Sync + 'static) {
        let mut written = Written::default();
        let scenario = Arc::new((self, check));
        let mut preemptions = 0;
        loop {
            let known = written.len();
            let runs = run_all(&scenario, &written, preemptions);
            if written.len() > known {
                written.learn();
                continue;
            }
            if preemptions == scenario.0.preemptions {
                std::eprintln!("{runs} runs, {known} words are written");
                assert!(runs > 1, "nothing was interleaved");
                return;
            }
            preemptions = scenario.0.preemptions;
        }
    }
}

fn run_all<C>(scenario: &Arc<(Scenario, C)>, written: &Written, preemptions: usize) -> usize
where
    C: Fn(&[u64], &[Result]) + Send + Sync + 'static,
{
    let runs = Arc::new(AtomicUsize::new(0));
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    let (scenario, written, counted) = (scenario.clone(), written.clone(), runs.clone());
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        let (Scenario { table, fault, .. }, check) = &*scenario;
        let model = Arc::new(Model::new(table, &written, *fault));
        let spawn = |number: usize| {
            let (scenario, model) = (scenario.clone(), model.clone());
            thread::spawn(move || scenario.0.parts[number](&View::new(&model)))
        };
        let threads: Vec<_> = (1..scenario.0.parts.len()).map(spawn).collect();
        let mut results = Vec::from([scenario.0.parts[0](&View::new(&model))]);
        results.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        let results: Vec<_> = results.into_iter().flatten().collect();
        let words = model.snapshot();
        let prints = model.snapshot_of_prints();
        if model.is_valid() {
            assert_sound(&words, &prints);
            check(&words, &results);
        }
    });
    runs.load(Relaxed)
}
