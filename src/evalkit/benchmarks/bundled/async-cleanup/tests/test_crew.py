import asyncio
import functools
import unittest

from crew import Pool, PoolClosed, run_all


def in_loop(test):
    """Runs an async test, which must leave no task behind and nothing for the exception handler."""

    @functools.wraps(test)
    def wrapper(self):
        complaints = []

        async def main():
            await asyncio.wait_for(test(self), timeout=4)
            await settle()
            return len(asyncio.all_tasks()) - 1

        loop = asyncio.new_event_loop()  # not asyncio.run(), which waits for what a failed test leaves behind
        loop.set_exception_handler(lambda loop, context: complaints.append(context["message"]))
        try:
            left_over = loop.run_until_complete(main())
        finally:
            loop.close()
        self.assertEqual((left_over, complaints), (0, []))

    return wrapper


async def settle():
    """Let all tasks run until they wait for something."""
    for _ in range(30):
        await asyncio.sleep(0)


async def start(coroutine):
    task = asyncio.ensure_future(coroutine)
    await settle()
    return task


class Resets:
    """A reset that waits until it is let go; notes what was reset to the end."""

    def __init__(self):
        self.begun, self.done = [], []
        self.go = asyncio.Event()

    async def __call__(self, item):
        self.begun.append(item)
        await self.go.wait()
        await asyncio.sleep(0)
        self.done.append(item)


async def hold(pool, seconds=3600):
    async with pool.lease():
        await asyncio.sleep(seconds)


class PoolTest(unittest.TestCase):
    async def check_whole(self, pool, size):
        """That all items can be borrowed, each once."""
        await settle()
        self.assertEqual(pool.free, size)
        items = [await pool.acquire() for _ in range(size)]
        self.assertEqual(len(set(items)), size)
        for item in items:
            await pool.release(item)

    @in_loop
    async def test_cancelled_while_holding(self):
        pool = Pool(["x"])
        task = await start(hold(pool))
        task.cancel()
        await self.check_whole(pool, 1)

    @in_loop
    async def test_cancelled_while_waiting(self):
        pool = Pool(["x"])
        item = await pool.acquire()
        first, second = await start(pool.acquire()), await start(pool.acquire())
        first.cancel()
        await settle()
        await pool.release(item)
        await settle()
        self.assertTrue(second.done())
        self.assertEqual(second.result(), "x")
        await pool.release("x")
        await self.check_whole(pool, 1)

    @in_loop
    async def test_cancelled_while_the_item_is_handed_over(self):
        pool = Pool(["x"])
        item = await pool.acquire()
        waiting = await start(pool.acquire())
        await pool.release(item)
        waiting.cancel()
        await settle()
        self.assertTrue(waiting.cancelled())
        await self.check_whole(pool, 1)

    @in_loop
    async def test_handed_over_item_goes_to_the_next_one(self):
        pool = Pool(["x"])
        item = await pool.acquire()
        line = [await start(pool.acquire()) for _ in range(4)]
        await pool.release(item)
        line[0].cancel()
        line[1].cancel()
        await settle()
        self.assertEqual([task.done() for task in line], [True, True, True, False])
        self.assertEqual(line[2].result(), "x")
        await pool.release("x")
        await settle()
        self.assertTrue(line[3].done())
        await pool.release("x")
        await self.check_whole(pool, 1)

    @in_loop
    async def test_reset_comes_first(self):
        resets = Resets()
        pool = Pool(["x"], resets)
        item = await pool.acquire()
        releasing, waiting = await start(pool.release(item)), await start(pool.acquire())
        self.assertEqual((pool.free, waiting.done(), resets.begun), (0, False, ["x"]))
        resets.go.set()
        await settle()
        self.assertEqual((releasing.done(), waiting.done(), resets.done), (True, True, ["x"]))

    async def check_undisturbed(self, pool, resets, task):
        """That a reset goes on while the task that gives back is cancelled several times."""
        for _ in range(3):
            task.cancel()
            await settle()
            self.assertEqual((task.done(), pool.free, resets.begun, resets.done), (False, 0, ["x"], []))
        resets.go.set()
        await settle()
        self.assertEqual((task.cancelled(), resets.begun, resets.done), (True, ["x"], ["x"]))
        await self.check_whole(pool, 1)

    @in_loop
    async def test_cancelled_during_the_reset(self):
        resets = Resets()
        pool = Pool(["x"], resets)
        task = await start(hold(pool, seconds=0))
        await self.check_undisturbed(pool, resets, task)

    @in_loop
    async def test_reset_because_of_a_cancellation(self):
        resets = Resets()
        pool = Pool(["x"], resets)
        task = await start(hold(pool))
        await self.check_undisturbed(pool, resets, task)

    @in_loop
    async def test_failing_reset(self):
        async def reset(item):
            await asyncio.sleep(0)
            raise OSError("crashed")

        pool = Pool(["x"], reset)
        item = await pool.acquire()
        waiting = await start(pool.acquire())
        with self.assertRaises(OSError):
            await pool.release(item)
        await settle()
        self.assertTrue(waiting.done())
        with self.assertRaises(OSError):
            await pool.release(waiting.result())
        self.assertEqual(pool.free, 1)


class CloseTest(unittest.TestCase):
    @in_loop
    async def test_nothing_is_lent_any_more(self):
        pool = Pool(["x"])
        await pool.close()
        with self.assertRaises(PoolClosed):
            await pool.acquire()
        await pool.close()

    @in_loop
    async def test_those_who_wait(self):
        pool = Pool(["x"])
        item = await pool.acquire()
        line = [await start(pool.acquire()) for _ in range(2)]
        line[0].cancel()
        closing = await start(pool.close())
        self.assertTrue(line[0].cancelled() and line[1].done() and not line[1].cancelled())
        self.assertIsInstance(line[1].exception(), PoolClosed)
        await pool.release(item)
        await settle()
        self.assertTrue(closing.done())

    @in_loop
    async def test_waits_until_everything_is_back_and_reset(self):
        resets = Resets()
        pool = Pool(["x", "y"], resets)
        holders = [await start(hold(pool)), await start(hold(pool))]
        closing = [await start(pool.close()), await start(pool.close())]
        holders[0].cancel()
        holders[1].cancel()
        await settle()
        self.assertFalse(closing[0].done() or closing[1].done())
        resets.go.set()
        await settle()
        self.assertTrue(closing[0].done() and closing[1].done())

    @in_loop
    async def test_item_is_handed_over_and_then_the_pool_closes(self):
        pool = Pool(["x"])
        item = await pool.acquire()
        waiting = await start(pool.acquire())
        await pool.release(item)
        closing = asyncio.ensure_future(pool.close())
        waiting.cancel()
        await settle()
        self.assertEqual((waiting.cancelled(), closing.done(), pool.free), (True, True, 1))


class Job:
    """A job that waits until it is let go or cancelled, and takes its time to clean up."""

    def __init__(self, result=None):
        self.result = result
        self.go, self.clean = asyncio.Event(), asyncio.Event()
        self.notes = []

    async def __call__(self, item):
        self.notes.append("begun")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            try:
                await self.clean.wait()
            except asyncio.CancelledError:
                self.notes.append("disturbed")
                raise
            self.notes.append("clean")
            if isinstance(self.result, str):
                return self.result
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class RunAllTest(unittest.TestCase):
    @in_loop
    async def test_results_in_the_order_of_the_jobs(self):
        pool, running, most = Pool("xyz"), [], []

        async def job(number, item):
            self.assertNotIn(item, running)
            running.append(item)
            most.append(len(running))
            for _ in range(7 - number):
                await asyncio.sleep(0)
            running.remove(item)
            return number

        self.assertEqual(await run_all(pool, [functools.partial(job, number) for number in range(8)]), list(range(8)))
        self.assertEqual((max(most), pool.free), (3, 3))

    @in_loop
    async def test_no_jobs(self):
        self.assertEqual(await run_all(Pool("x"), []), [])

    @in_loop
    async def test_failure_waits_for_the_clean_up_of_the_others(self):
        pool, jobs = Pool("xy"), [Job(), Job(OSError("first")), Job(), Job()]
        run = await start(run_all(pool, jobs))
        jobs[1].go.set()
        await settle()
        self.assertFalse(run.done())
        self.assertEqual([job.notes for job in jobs], [["begun", "cancelled"], ["begun"], [], []])
        jobs[0].clean.set()
        await settle()
        self.assertTrue(run.done())
        self.assertEqual(str(run.exception()), "first")
        self.assertEqual(jobs[0].notes, ["begun", "cancelled", "clean"])
        self.assertEqual((jobs[2].notes, jobs[3].notes, pool.free), ([], [], 2))

    @in_loop
    async def test_first_failure_counts(self):
        async def late(item):
            try:
                await asyncio.sleep(3600)
            finally:
                raise ValueError("during the clean-up")

        jobs = [late, Job(OSError("first")), late, Job("finished all the same")]
        jobs[3].clean.set()
        pool = Pool("wxyz")
        run = await start(run_all(pool, jobs))
        jobs[1].go.set()
        await settle()
        self.assertTrue(run.done())
        self.assertIsInstance(run.exception(), OSError)
        self.assertEqual(pool.free, 4)

    @in_loop
    async def test_cancelled(self):
        pool, jobs = Pool("xy"), [Job(), Job("finished all the same"), Job()]
        run = await start(run_all(pool, jobs))
        run.cancel()
        await settle()
        self.assertFalse(run.done())
        for job in jobs:
            job.clean.set()
        await settle()
        self.assertTrue(run.cancelled())
        self.assertEqual(
            [job.notes for job in jobs], [["begun", "cancelled", "clean"], ["begun", "cancelled", "clean"], []]
        )
        self.assertEqual(pool.free, 2)

    @in_loop
    async def test_cancelled_again_and_again(self):
        resets = Resets()
        pool, jobs = Pool("xy", resets), [Job(), Job()]
        run = await start(run_all(pool, jobs))
        for _ in range(3):
            run.cancel()
            await settle()
        jobs[0].clean.set()
        run.cancel()
        await settle()
        self.assertEqual([job.notes for job in jobs], [["begun", "cancelled", "clean"], ["begun", "cancelled"]])
        jobs[1].clean.set()
        await settle()
        self.assertEqual((run.done(), sorted(resets.begun), resets.done), (False, ["x", "y"], []))
        run.cancel()
        resets.go.set()
        await settle()
        self.assertEqual((run.cancelled(), sorted(resets.done), pool.free), (True, ["x", "y"], 2))

    @in_loop
    async def test_cancelled_during_the_clean_up_after_a_failure(self):
        pool, jobs = Pool("xy"), [Job(), Job(OSError())]
        run = await start(run_all(pool, jobs))
        jobs[1].go.set()
        await settle()
        run.cancel()
        await settle()
        self.assertEqual((run.done(), jobs[0].notes), (False, ["begun", "cancelled"]))
        jobs[0].clean.set()
        await settle()
        self.assertTrue(run.cancelled())
        self.assertEqual((jobs[0].notes, pool.free), (["begun", "cancelled", "clean"], 2))

    @in_loop
    async def test_pool_is_shared(self):
        pool, stopped, other = Pool("x"), Job(), Job("other")
        first, second = await start(run_all(pool, [stopped])), await start(run_all(pool, [other]))
        stopped.clean.set()
        first.cancel()
        await settle()
        other.go.set()
        await settle()
        self.assertTrue(second.done())
        self.assertEqual((second.result(), pool.free), (["other"], 1))
