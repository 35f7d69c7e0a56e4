//! Which backend would have had a request whose log does not say: the one that the split gives it.

use switchback_config::model::Config;
use switchback_proxy::split::{Sampler, Split};

/// The splits of the file, drawn from a fixed seed.
#[derive(Debug)]
pub(super) struct Spread {
    services: Vec<ServiceSpread>,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct ServiceSpread {
    split: Split,
    sampler: Sampler,
    by_client: bool,
}

impl Spread {
    pub(super) fn new(config: &Config) -> Self {
        let mut random = fastrand::Rng::with_seed(0);
        let services = config.services.values().map(|service| {
            let names = service.backends.keys();
            let weight = |name| service.weights.get(name).copied().unwrap_or(0);
            let weights: Vec<u32> = names.map(weight).collect();
            let stable = service.backends.get_index_of(&service.stable).unwrap_or(0);
            let split = Split::new(&weights, stable);
            ServiceSpread {
                sampler: Sampler::new(&split, &mut |bound| random.u64(0..bound)),
                split,
                by_client: service.affinity.is_some(),
            }
        });
        Self {
            services: services.collect(),
            random,
        }
    }

    /// The backend of the next request.
    pub(super) fn next(&mut self, service: usize, client: u64) -> Option<usize> {
        let spread = &mut self.services[service];
        if spread.by_client {
            return Some(spread.split.by_key(client));
        }
        let random = &mut self.random;
        let mut draw = |bound| random.u64(0..bound);
        spread.split.next(&mut spread.sampler, &mut draw)
    }
}
