//! Properties of one pacer, and of several pacers on one quota that they do not know. A number in a test name is a fault in
//! tests/FAULTS.md.

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Monotonic {
    Monotonic::at(Duration::from_millis(millis))
}

#[test]
fn requests_go_out_evenly_spaced_and_idle_time_is_not_saved_up() {
    let mut pacer = Pacer::new(4.0);
    // After a pause, the bucket holds one token and WAKE_LATENCY.
    let script = [(0, Ok(())), (0, Err(255)), (100, Err(155)), (256, Ok(())), (60_000, Ok(())), (60_000, Err(250))];
    for (millis, expected) in script {
        assert_eq!(pacer.take(at(millis)).map_err(|wait| wait.as_millis()), expected, "at {millis} ms");
    }
}

#[test]
fn a_caller_that_wakes_3_ms_late_keeps_its_rate() {
    let mut pacer = Pacer::new(10.0);
    let (mut now, mut sent) = (0, 0);
    while now < 60_000 {
        match pacer.take(at(now)) {
            Ok(()) => {
                sent += 1;
                assert!(sent <= 588, "{now} ms");
            }
            Err(wait) => now += u64::try_from(wait.as_millis()).expect("short") + 3,
        }
    }
    assert_eq!(sent, 588);
}

#[test]
fn throttles_of_requests_in_flight_together_decrease_the_rate_once() {
    let mut pacer = Pacer::new(10.0);
    for _ in 0..8 {
        pacer.throttled(at(100), at(200));
    }
    assert!((pacer.current_rate() - 7.0).abs() < 1e-9);
    pacer.throttled(at(201), at(300));
    assert!((pacer.current_rate() - 4.9).abs() < 1e-9);
}

#[test]
fn the_rate_grows_per_second_and_not_per_response() {
    for cuts in [1, 3, 5] {
        let mut pacer = Pacer::new(8.0);
        for cut in 0..cuts {
            pacer.throttled(at(cut), at(cut));
        }
        let before = pacer.current_rate();
        pacer.within_quota();
        let grown_per_second = (pacer.current_rate() - before) * before;
        assert!((grown_per_second - 8.0 * GROWTH_PER_SECOND).abs() < 1e-9, "after {cuts} cuts: {grown_per_second}");
    }
}

#[test]
fn the_rate_recovers_after_many_throttles() {
    let mut pacer = Pacer::new(5.0);
    for second in 0..1_000 {
        pacer.throttled(at(second * 1_000), at(second * 1_000));
    }
    assert!(pacer.current_rate() >= 0.1 - 1e-9);
    // Five minutes of requests at the pacer's rate.
    let mut elapsed = 0.0;
    while elapsed < 300.0 {
        elapsed += 1.0 / pacer.current_rate();
        pacer.within_quota();
    }
    assert!((pacer.current_rate() - 5.0).abs() < 1e-9, "{}", pacer.current_rate());
}

/// A service's quota: a token bucket with a burst of one second.
struct Service {
    rate: f64,
    tokens: f64,
    filled_at: Monotonic,
}

impl Service {
    fn allows(&mut self, now: Monotonic) -> bool {
        let filled = self.tokens + now.since(self.filled_at).as_secs_f64() * self.rate;
        (self.tokens, self.filled_at) = (filled.min(self.rate), now);
        let allows = self.tokens >= 1.0;
        if allows {
            self.tokens -= 1.0;
        }
        allows
    }
}

/// A service and its clients, which send as often as their pacers allow.
struct World {
    service: Service,
    clients: Vec<Client>,
    now: Monotonic,
}

struct Client {
    pacer: Pacer,
    answered: f64,
    throttled: f64,
}

/// The time until a response, and the step of the simulation.
const LATENCY: Duration = Duration::from_millis(40);
const STEP: Duration = Duration::from_millis(7);

impl World {
    fn new(quota: f64, limits: &[f64]) -> Self {
        let client = |&limit: &f64| Client { pacer: Pacer::new(limit), answered: 0.0, throttled: 0.0 };
        let service = Service { rate: quota, tokens: quota, filled_at: at(0) };
        Self { service, clients: limits.iter().map(client).collect(), now: at(0) }
    }

    /// Advances the time, and resets the counts first.
    fn run(&mut self, time: Duration) {
        for client in &mut self.clients {
            (client.answered, client.throttled) = (0.0, 0.0);
        }
        let (end, count) = (self.now + time, self.clients.len());
        let mut first = 0;
        while self.now < end {
            // The client that sends first changes with every step.
            first += 1;
            for nth in 0..count {
                let client = &mut self.clients[(first + nth) % count];
                if client.pacer.take(self.now).is_err() {
                    continue;
                }
                if self.service.allows(self.now) {
                    client.answered += 1.0;
                    client.pacer.within_quota();
                } else {
                    client.throttled += 1.0;
                    client.pacer.throttled(self.now, self.now + LATENCY);
                }
            }
            self.now = self.now + STEP;
        }
    }

    fn answered(&self) -> f64 {
        self.clients.iter().map(|client| client.answered).sum()
    }

    fn throttled_share(&self) -> f64 {
        let throttled: f64 = self.clients.iter().map(|client| client.throttled).sum();
        throttled / (throttled + self.answered())
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_single_caller_uses_the_whole_quota_without_a_throttle() {
    let mut world = World::new(5.0, &[5.0]);
    world.run(10 * MINUTE);
    assert!(world.throttled_share() == 0.0 && world.answered() >= 0.95 * 3_000.0, "{}", world.answered());
}

#[test]
fn fault_048_the_rate_follows_a_lowered_quota_within_one_minute_and_a_raised_one_within_five() {
    let mut world = World::new(5.0, &[5.0]);
    world.run(MINUTE);
    world.service.rate = 2.0;
    world.run(MINUTE);
    world.run(10 * MINUTE);
    assert!(world.throttled_share() < 0.05, "{}", world.throttled_share());
    assert!(world.answered() >= 0.8 * 1_200.0, "{}", world.answered());
    world.service.rate = 5.0;
    world.run(5 * MINUTE);
    assert!(world.clients[0].pacer.current_rate() >= 0.95 * 5.0);
}

#[test]
fn fault_049_two_on_one_quota_share_it() {
    let mut world = World::new(5.0, &[5.0, 5.0]);
    world.run(5 * MINUTE);
    world.run(30 * MINUTE);
    let answered = world.answered();
    assert!(answered >= 0.9 * 9_000.0, "{answered}");
    for client in &world.clients {
        assert!(client.answered >= 0.35 * answered, "{} of {answered}", client.answered);
    }
    assert!(world.throttled_share() < 0.05, "{}", world.throttled_share());
}

/// The smaller share of the responses that two clients get within `seconds`. They start `offset` apart on one quota of `rate`, and
/// each is configured to use all of it. `seed` sets the delays of wake-ups and of the network.
fn smaller_share_of_two(rate: f64, offset: Duration, seconds: u64, seed: u64) -> f64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new(rate, &[rate, rate]);
    let mut due = [at(0), at(0) + offset];
    loop {
        let next = usize::from(due[1] < due[0]);
        let (now, client) = (due[next], &mut world.clients[next]);
        if now >= at(seconds * 1_000) {
            break;
        }
        let late = Duration::from_micros(rng.u64(0..1_500));
        if let Err(wait) = client.pacer.take(now) {
            due[next] = now + wait + late;
            continue;
        }
        let arrives = now + Duration::from_micros(rng.u64(1_000..3_000));
        if world.service.allows(arrives) {
            client.answered += 1.0;
            client.pacer.within_quota();
        } else {
            client.throttled += 1.0;
            client.pacer.throttled(now, arrives);
        }
        let allowed = 1.0 + rate * now.elapsed().as_secs_f64();
        assert!(client.answered + client.throttled <= allowed, "{rate} requests/s, {offset:?} apart, {now:?}");
        due[next] = now + Duration::from_micros(1) + late;
    }
    let answered = world.answered();
    world.clients.iter().map(|client| client.answered / answered).fold(1.0, f64::min)
}

#[test]
fn two_callers_that_start_up_to_50_ms_apart_each_get_a_third_of_the_responses() {
    for rate in [4.0, 5.0, 10.0] {
        for seed in 0..50 {
            let offset = Duration::from_millis(seed);
            let share = smaller_share_of_two(rate, offset, 600, seed);
            assert!(share >= 1.0 / 3.0, "{rate} requests/s, {offset:?} apart, seed {seed}: {share}");
        }
    }
}

proptest! {
    #[test]
    fn no_period_has_more_requests_than_the_rate_allows(
        limit in 0.1_f64..50.0, gaps in prop::collection::vec((0_u64..3_000, 0_u8..3), 1..200),
    ) {
        let mut pacer = Pacer::new(limit);
        let mut now = at(0);
        let mut sent: Vec<Monotonic> = Vec::new();
        for (gap, event) in gaps {
            now = now + Duration::from_millis(gap);
            match event {
                0 => pacer.within_quota(),
                1 => pacer.throttled(now, now),
                _ => {}
            }
            prop_assert!(0.0 < pacer.current_rate() && pacer.current_rate() <= limit);
            if pacer.take(now).is_ok() {
                sent.push(now);
            }
        }
        for (first, start) in sent.iter().enumerate() {
            for (last, end) in sent.iter().enumerate().skip(first) {
                let count = f64::from(u32::try_from(last - first + 1).expect("small"));
                prop_assert!(count <= BURST + WAKE_LATENCY * limit + end.since(*start).as_secs_f64() * limit + 1e-3);
            }
        }
    }

    #[test]
    fn a_token_is_available_after_the_returned_wait(limit in 0.1_f64..50.0, cuts in 0_u8..5, idle in 0_u64..5_000) {
        let mut pacer = Pacer::new(limit);
        prop_assert_eq!(pacer.take(at(0)), Ok(()));
        for _ in 0..cuts {
            pacer.throttled(at(idle), at(idle));
        }
        if let Err(wait) = pacer.take(at(idle)) {
            prop_assert_eq!(pacer.take(at(idle) + wait), Ok(()));
        }
    }
}
