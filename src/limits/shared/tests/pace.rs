//! How fast a check is. Not run by default: it prints and proves nothing.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measures_checks() {
    let server = Server::start();
    let instance = Instance::connected(&server.url(), PATIENT).await;
    for tasks in [1_u32, 64] {
        let each = 40_000 / tasks.max(4);
        let start = Instant::now();
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..tasks {
            let shared = Arc::clone(&instance.shared);
            workers.spawn(async move {
                let period = Duration::from_micros(10);
                for number in 0..each {
                    let client = format!("v4:192.0.{worker}.{}/32", number % 250);
                    let charges = [
                        charge(&format!("conn:{client}"), period, 1_000_000, 1),
                        charge(
                            &format!("conn:v4:192.0.{worker}.0/24"),
                            period,
                            1_000_000,
                            1,
                        ),
                    ];
                    let count = Count {
                        key: client.clone(),
                        max: 20,
                    };
                    let ruling = shared.admit(&client, &charges, &[count]).await;
                    assert_eq!(ruling, Some(Ruling::Pass));
                    shared.leave(&[client]);
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        let checks = tasks * each;
        let rate = f64::from(checks) / start.elapsed().as_secs_f64();
        let micros = f64::from(tasks) * 1e6 / rate;
        println!("{tasks} at once: {rate:.0} checks/s, {micros:.0} us each");
    }
}
