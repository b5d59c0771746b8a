from __future__ import annotations

from threading import Event, get_ident

from luthier.trackers.worker import Worker


def test_calls_are_done_in_order_in_one_other_thread():
    done: list[tuple[int, int]] = []
    worker = Worker("test")
    for number in range(50):
        assert worker.put(lambda number=number: done.append((number, get_ident())))
    assert worker.end()
    assert worker.wait(10)
    assert [number for number, _ in done] == list(range(50))
    threads = {thread for _, thread in done}
    assert len(threads) == 1
    assert get_ident() not in threads
    assert worker.end(), "it has ended already"


def test_after_an_error_nothing_is_done():
    done: list[str] = []
    worker = Worker("test")
    worker.put(lambda: done.append("before"))
    worker.put(lambda: [][0])
    worker.put(lambda: done.append("after"))
    assert worker.end()
    assert worker.wait(10)
    assert done == ["before"]
    assert isinstance(worker.error, IndexError)


def test_nobody_waits_for_one_that_hangs():
    begun, go_on, done = Event(), Event(), Event()
    worker = Worker("test", max_waiting=1)

    def hang() -> None:
        begun.set()
        go_on.wait()

    assert worker.put(hang)
    assert begun.wait(10)
    assert worker.put(done.set)
    assert not worker.put(done.set), "one waits already"
    assert not worker.end()
    assert not worker.wait(0.01)
    go_on.set()
    assert done.wait(10)
    assert worker.end()
    assert worker.wait(10)
