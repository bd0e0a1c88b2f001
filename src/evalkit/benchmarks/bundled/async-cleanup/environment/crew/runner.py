"""Runs jobs with what a pool lends."""

import asyncio


async def run_all(pool, jobs):
    """The results of `await job(item)` for all *jobs*."""
    return list(await asyncio.gather(*[_run(pool, job) for job in jobs]))


async def _run(pool, job):
    async with pool.lease() as item:
        return await job(item)
