//! Work by key: what is marked is done soon, a few at once, and again after a pause if it fails.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is to be done. A key that is marked while its work is under way is worked on again.
#[derive(Debug)]
pub struct Worklist<K, V> {
    marked: Mutex<BTreeMap<K, V>>,
    woken: Notify,
}

impl<K, V> Default for Worklist<K, V> {
    fn default() -> Self {
        Self { marked: Mutex::default(), woken: Notify::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Worklist<K, V> {
    /// There is work of this key. `value` takes the place of what was said of it before.
    pub fn mark(&self, key: K, value: V) {
        self.marked.lock().insert(key, value);
        self.woken.notify_one();
    }

    /// There is work of this key, of which something more precise may have been said before.
    pub fn mark_also(&self, key: K, value: V) {
        self.marked.lock().entry(key).or_insert(value);
        self.woken.notify_one();
    }

    /// Works until cancelled, on `at_once` keys at a time. `work` returns whether it is done; if not, it is tried again
    /// after about `pause`, and not before, however often it is marked.
    pub async fn run<F: Future<Output = bool>>(
        &self,
        at_once: usize,
        pause: Duration,
        cancel: CancellationToken,
        work: impl Fn(K, V) -> F,
    ) {
        let mut running = FuturesUnordered::new();
        let mut failed = BTreeMap::new();
        let mut again = Instant::now();
        loop {
            while running.len() < at_once {
                let Some((key, value)) = self.marked.lock().pop_first() else { break };
                if let Some(waiting) = failed.get_mut(&key) {
                    *waiting = value;
                    continue;
                }
                let work = work(key.clone(), value.clone());
                running.push(async move { (work.await, key, value) });
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                // Before all else that may never cease.
                () = tokio::time::sleep_until(again), if !failed.is_empty() => {
                    for (key, value) in std::mem::take(&mut failed) {
                        self.mark_also(key, value);
                    }
                }
                Some((done, key, value)) = running.next(), if !running.is_empty() => if !done {
                    if failed.is_empty() {
                        again = Instant::now() + pause;
                    }
                    failed.insert(key, value);
                },
                () = self.woken.notified(), if running.len() < at_once => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_until_it_is_done_and_newer_word_counts() {
        let list = Arc::new(Worklist::<&str, u32>::default());
        list.mark("a", 1);
        list.mark("a", 2);
        list.mark_also("a", 3);
        let (cancel, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let worker = {
            let (list, cancel, seen) = (Arc::clone(&list), cancel.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                list.run(2, Duration::from_secs(1), cancel, |key, value| {
                    seen.lock().push((key, value));
                    let tries = seen.lock().iter().filter(|(seen, _)| *seen == key).count();
                    async move { tries > 2 }
                })
                .await;
            })
        };
        tokio::time::sleep(Duration::from_secs(10)).await;
        list.mark("b", 9);
        tokio::time::sleep(Duration::from_secs(10)).await;
        cancel.cancel();
        worker.await.unwrap();
        assert_eq!(*seen.lock(), [("a", 2), ("a", 2), ("a", 2), ("b", 9), ("b", 9), ("b", 9)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_while_other_work_never_ceases() {
        let list = Worklist::<&str, ()>::default();
        list.mark("rare", ());
        list.mark("always", ());
        let (cancel, tries) = (CancellationToken::new(), Mutex::new(0));
        let work = |key, ()| {
            let (list, tries, cancel) = (&list, &tries, &cancel);
            async move {
                if key == "always" {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    list.mark(key, ());
                    return true;
                }
                *tries.lock() += 1;
                if *tries.lock() == 3 {
                    cancel.cancel();
                }
                false
            }
        };
        let run = list.run(2, Duration::from_secs(1), cancel.clone(), work);
        tokio::time::timeout(Duration::from_secs(10), run).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_waits_however_often_it_is_marked() {
        let list = Worklist::<&str, u32>::default();
        list.mark("a", 0);
        let (cancel, seen) = (CancellationToken::new(), Mutex::new(Vec::new()));
        let work = |_, value| {
            seen.lock().push(value);
            async { false }
        };
        let marking = async {
            for n in 1..=200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                list.mark("a", n);
            }
            cancel.cancel();
        };
        tokio::join!(list.run(2, Duration::from_secs(1), cancel.clone(), work), marking);
        // At once, and after a second each time with what was said last.
        assert_eq!(*seen.lock(), [0, 100]);
    }
}
