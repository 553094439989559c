/* Threads that wait for work, so that a call can use several cores. Threads made for each call would cost 100 us.
 *
 * parallel() calls a function for the tasks 0 to count - 1. The caller takes tasks too, so nothing waits for a thread
 * that is slow to wake up. Which thread runs a task changes no bit: tasks write to different places, and each thread
 * rounds as the caller does.
 */

#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#define MOST_THREADS 64
/* How often a thread looks for the next call before it goes to sleep: some tenths of a millisecond, which is more than
 * there is between two training steps. */
#define LOOKS 20000

typedef void gru_task(void *work, int task);

static struct {
    pthread_mutex_t in_use;          /* held during a call; a second caller does its tasks alone */
    pthread_mutex_t sleeping;
    pthread_cond_t wake_up;
    int sleepers;                    /* under the lock `sleeping` */
    int started, is_refused;         /* threads, and whether the system gave no more; under the lock `in_use` */
    _Atomic(gru_task *) task;
    _Atomic(void *) work;
    _Atomic uint64_t rounding;       /* of the caller */
    atomic_int threads;              /* that may take part, the caller among them */
    /* The number of the call (32 bits), of its tasks (16) and of the next task (16). In one word, so that a thread that
     * comes late takes no task of the next call for one of this. */
    _Atomic uint64_t state __attribute__((aligned(64)));
    atomic_int left __attribute__((aligned(64)));  /* tasks that are not done */
} pool = {.in_use = PTHREAD_MUTEX_INITIALIZER, .sleeping = PTHREAD_MUTEX_INITIALIZER, .wake_up = PTHREAD_COND_INITIALIZER};

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* How this thread rounds, and whether it takes the smallest numbers for 0. */
static inline uint64_t get_rounding(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr();
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
#else
    return 0;
#endif
}

static inline void set_rounding(uint64_t mode)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((unsigned)mode);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
#else
    (void)mode;
#endif
}

/* Do tasks of the present call until none is left to begin. */
static void take_tasks(int thread)
{
    for (;;) {
        uint64_t state = atomic_load(&pool.state);
        int count = state >> 16 & 0xFFFF, next = state & 0xFFFF;
        if (next >= count) return;
        gru_task *task = atomic_load_explicit(&pool.task, memory_order_relaxed);
        void *work = atomic_load_explicit(&pool.work, memory_order_relaxed);
        uint64_t rounding = atomic_load_explicit(&pool.rounding, memory_order_relaxed);
        if (thread >= atomic_load_explicit(&pool.threads, memory_order_relaxed)) return;
        /* If this succeeds, the call was not over, so what was read above is its own. */
        if (!atomic_compare_exchange_weak(&pool.state, &state, state + 1)) continue;
        if (thread) set_rounding(rounding);
        task(work, next);
        atomic_fetch_sub(&pool.left, 1);
    }
}

static void *wait_for_calls(void *argument)
{
    int thread = (int)(intptr_t)argument;
    uint32_t seen = 0;
    for (;;) {
        /* A thread that the last call had no use for sleeps at once. */
        int looks = thread < atomic_load_explicit(&pool.threads, memory_order_relaxed) ? LOOKS : 0;
        for (; looks && atomic_load(&pool.state) >> 32 == seen; looks--) pause_briefly();
        if (!looks) {
            pthread_mutex_lock(&pool.sleeping);
            pool.sleepers++;
            while (atomic_load(&pool.state) >> 32 == seen) pthread_cond_wait(&pool.wake_up, &pool.sleeping);
            pool.sleepers--;
            pthread_mutex_unlock(&pool.sleeping);
        }
        seen = atomic_load(&pool.state) >> 32;
        take_tasks(thread);
    }
    return 0;
}

/* A forked child has none of the threads, and perhaps locks that they or their caller held. */
static void forget_threads(void)
{
    pthread_mutex_init(&pool.in_use, 0);
    pthread_mutex_init(&pool.sleeping, 0);
    pthread_cond_init(&pool.wake_up, 0);
    pool.sleepers = pool.started = pool.is_refused = 0;
    atomic_store(&pool.state, 0);
}

/* Start what is missing of so many threads, the caller among them; there may be fewer, if the system refuses. */
static void start_threads(int threads)
{
    static int is_prepared;
    if (!is_prepared) is_prepared = !pthread_atfork(0, 0, forget_threads);
    if (!is_prepared || pool.is_refused || pool.started >= threads - 1) return;
    /* Signals are for the threads of the program, but for those of a crash. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV), sigdelset(&all, SIGBUS), sigdelset(&all, SIGFPE), sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.started < threads - 1) {
        pthread_t thread;
        pool.is_refused = pthread_create(&thread, 0, wait_for_calls, (void *)(intptr_t)(pool.started + 1));
        if (pool.is_refused) break;
        pthread_detach(thread);
        pool.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* Call task(work, i) for each i from 0 to count - 1, on at most so many threads. */
static void parallel(int threads, int count, gru_task *task, void *work)
{
    if (threads < 2 || count < 2 || count > 0xFFFF || pthread_mutex_trylock(&pool.in_use)) {
        for (int i = 0; i < count; i++) task(work, i);
        return;
    }
    start_threads(threads);
    atomic_store_explicit(&pool.task, task, memory_order_relaxed);
    atomic_store_explicit(&pool.work, work, memory_order_relaxed);
    atomic_store_explicit(&pool.rounding, get_rounding(), memory_order_relaxed);
    atomic_store_explicit(&pool.threads, threads, memory_order_relaxed);
    atomic_store(&pool.left, count);
    uint64_t call = (atomic_load(&pool.state) >> 32) + 1;
    atomic_store(&pool.state, call << 32 | (uint64_t)count << 16);
    pthread_mutex_lock(&pool.sleeping);
    if (pool.sleepers) pthread_cond_broadcast(&pool.wake_up);
    pthread_mutex_unlock(&pool.sleeping);
    take_tasks(0);
    for (int looks = 0; atomic_load(&pool.left); looks++) {
        pause_briefly();
        if (looks > LOOKS) sched_yield();
    }
    pthread_mutex_unlock(&pool.in_use);
}

#endif
