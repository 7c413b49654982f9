//! One integration binary: contract suites, and tests of a whole cluster.

mod layers;
