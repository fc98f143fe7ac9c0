// Enough of CUDA C++ to run the kernels on the host, compiled by a C++ compiler.
//
// Blocks run one after another; the threads of a block are fibers that take turns from barrier to barrier, each running
// until its next __syncthreads(). So blocks have their real shape, static __shared__ memory is a static variable, and a
// missing barrier or one that only some threads reach shows.

#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __global__ static
#define __device__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__

struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }

using std::isinf;
using std::max;
using std::min;

static inline void sine_and_cosine(float angle, float* sine, float* cosine) {
    *sine = sinf(angle);
    *cosine = cosf(angle);
}
#define __sincosf sine_and_cosine  // math.h has that name

// As far off as the card's fast versions may be, two units of the last place, so that no test needs more than they give.
static inline float two_units_above(float value) { return value * 1.0000002384f; }
static inline float __fdividef(float a, float b) { return two_units_above(a / b); }
static inline float rsqrtf(float value) { return two_units_above(1.0f / sqrtf(value)); }

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace host {

struct Fiber {
    ucontext_t context;
    jmp_buf resume;
    bool started = false, done = false;
    std::unique_ptr<char[]> stack;
};

constexpr size_t STACK = 256 * 1024;
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static int current;
static void (*body)(void*);
static void* body_arguments;

static void enter() {
    body(body_arguments);
    fibers[current].done = true;
    _longjmp(scheduler, 1);
}

static void run_fiber(int i) {
    current = i;
    threadIdx = {(unsigned)i, 0, 0};
    if (_setjmp(scheduler)) return;
    Fiber& fiber = fibers[i];
    if (fiber.started) _longjmp(fiber.resume, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

// Whether all threads met at each barrier.
static bool run_block(int threads) {
    if ((int)fibers.size() < threads) fibers.resize(threads);
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.started = fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (;;) {
        int finished = 0;
        for (int i = 0; i < threads; ++i) {
            run_fiber(i);
            finished += fibers[i].done;
        }
        if (finished == threads) return true;
        if (finished) return false;
    }
}

template <auto kernel>
struct Launcher;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Launcher<kernel> {
    template <size_t... i>
    static void call(void** at, std::index_sequence<i...>) {
        kernel(*static_cast<Arguments*>(at[i])...);
    }
    static void run(void* arguments) {
        call(static_cast<void**>(arguments), std::index_sequence_for<Arguments...>{});
    }
};

// 0, or -1 where only some threads of a block reached a barrier.
template <auto kernel>
static int launch(const int* grid, int threads, void** arguments) {
    body = Launcher<kernel>::run;
    body_arguments = arguments;
    gridDim = {(unsigned)grid[0], (unsigned)grid[1], (unsigned)grid[2]};
    blockDim = {(unsigned)threads, 1, 1};
    for (int z = 0; z < grid[2]; ++z)
        for (int y = 0; y < grid[1]; ++y)
            for (int x = 0; x < grid[0]; ++x) {
                blockIdx = {(unsigned)x, (unsigned)y, (unsigned)z};
                if (!run_block(threads)) return -1;
            }
    return 0;
}

}  // namespace host

#define __syncthreads()                                                                    \
    do {                                                                                   \
        if (!_setjmp(host::fibers[host::current].resume)) _longjmp(host::scheduler, 1);    \
    } while (0)

#define HOST_KERNEL(name)                                                                  \
    extern "C" __attribute__((visibility("default"))) int launch_##name(                   \
        const int* grid, int threads, void** arguments) {                                  \
        return host::launch<name>(grid, threads, arguments);                               \
    }
