// Beamforming: demodulation, first arrivals, delay-and-sum (Perrot et al. 2021; definitions in ussim/beamform.py).
//
// Delay-and-sum: a thread a pixel, 32 neighbors along x in a warp, so that what a warp reads of a record lies in a few cache
// lines. Receive delay and phase are computed once a (pixel, element) for all transmits and frames; TRANSMITS x FRAMES sums
// stay in registers. The rotation exp(2πi f_0 τ) is the product of a receive factor, applied as elements are summed, and a
// transmit factor, applied at the end. Delays are whole samples and a rest, so float32 loses nothing. Where all transmits of
// an element read inside their records, which one test tells, no channel is tested. The last TRANSMITS transmits and FRAMES
// frames may overlap those before them, which are then left as they are: no count of either is tested in the loops.
//
// Sizes, as -D: TRANSMITS and FRAMES a thread, at most as many as there are; TAPS of the interpolation, by
// table unless LINEAR (1: two taps, 1 - f and f);
// IQ (1: complex data, 0: real); MASKED (1: some channels are left out); WEIGHTED (1: each transmit has a weight at each pixel);
// POINTS (1: each pixel has its own x and z, not its column's and its row's); WINDOWED (1: elements of an aperture count
// differently);
// COMPOUNDING (0: the coherent sum of the transmits, 1: the root of the sum of their powers, 2: none, an image per transmit);
// FILTER_ORDER of the low-pass that demodulates, FILTER_EDGE samples at most by which it extends a record; COMPENSATED (1: its
// numbers are pairs of float32, as fast as 15 of them, where a card has few units for float64; 0: float64).

#include "physics.cuh"

#define THREADS 128
#define TILE_COLUMNS 32
#define TILE_ROWS (THREADS / TILE_COLUMNS)
#define TABLE 2048      // steps of the interpolation table, linear between them
#define LAWS 8          // laws at once in the search for first arrivals

#if IQ
typedef float2 Sample;
__device__ inline void add(Sample& sum, float weight, Sample value) {
    sum.x = fmaf(weight, value.x, sum.x);
    sum.y = fmaf(weight, value.y, sum.y);
}
__device__ inline Sample zero() { return make_float2(0.0f, 0.0f); }
__device__ inline void add_power(Sample& sum, Sample value) { sum.x += value.x * value.x + value.y * value.y; }
__device__ inline void take_root(Sample& sum) { sum.x = sqrtf(sum.x); }
#else
typedef float Sample;
__device__ inline void add(Sample& sum, float weight, Sample value) { sum = fmaf(weight, value, sum); }
__device__ inline Sample zero() { return 0.0f; }
__device__ inline void add_power(Sample& sum, Sample value) { sum += value * value; }
__device__ inline void take_root(Sample& sum) { sum = sqrtf(sum); }
#endif

// Positions as coarse + rest: coarse ones are multiples of 2^-22 m, whose differences are exact in float32.
struct __align__(16) Position {
    float x, x_rest, z, z_rest;
};

struct __align__(16) Element {
    Position at;
    float sine, cosine;          // of its normal
    float delay, delay_rest;     // receive delay: whole samples, and the rest
};

struct Das {
    float samples_per_meter, samples_per_metre_rest;
    float cycles_per_sample, cycles_per_sample_rest;  // demodulation frequency; 0 for RF data
    float cos_acceptance;
    float double_f_number, a0, a1, a2, flat;  // window over the aperture (beamforming/windows.py)
};

// whole + rest = the distance of a point to an element in samples, to float64's worth of a sample's 1e-6.
__device__ inline float2 distance_samples(float dx, float dz, float dx_rest, float dz_rest, float distance, Das das) {
    // distance is about the root of dx² + dz²; what is missing comes from the squares, each as value and error:
    // a contracted product would count its error twice.
    const float xx = dx * dx, zz = dz * dz, square = distance * distance;
    const float errors = fmaf(dx, dx, -xx) + fmaf(dz, dz, -zz) - fmaf(distance, distance, -square);
    const float difference = (fmaxf(xx, zz) - square) + fminf(xx, zz);
    const float rest = __fdividef(0.5f * (difference + errors) + dx * dx_rest + dz * dz_rest, distance);
    const float product = distance * das.samples_per_meter;
    const float product_error = fmaf(distance, das.samples_per_meter, -product);
    const float whole = floorf(product);
    return make_float2(
        whole,
        (product - whole) + (product_error + distance * das.samples_per_metre_rest + rest * das.samples_per_meter)
    );
}

// Cycles, less whole ones, of whole + rest samples.
__device__ inline float sample_cycles(float whole, float rest, Das das) {
    const float product = whole * das.cycles_per_sample;
    const float error = fmaf(whole, das.cycles_per_sample, -product) + whole * das.cycles_per_sample_rest;
    return (product - rintf(product)) + (error + rest * das.cycles_per_sample);
}

#if WINDOWED
// How much an element counts within its aperture: the window at |tan θ| 2 f#, θ the angle to its normal.
__device__ inline float window_at(float dx, float dz, Element element, Das das) {
    const float toward = fabsf(dz) * element.cosine + dx * element.sine;
    const float across = fabsf(dx * element.cosine - fabsf(dz) * element.sine);
    const float place = toward > 0.0f ? fminf(das.double_f_number * across / toward, 1.0f) : 0.0f;
    const float s = fmaxf(0.0f, (place - das.flat) / (1.0f - das.flat));
    const float cosine = rotation(0.5f * s).x;
    return das.a0 + das.a1 * cosine + das.a2 * (2.0f * cosine * cosine - 1.0f);
}
#endif

// Weights of the samples around one at a fraction, 0 to 1.
__device__ inline void weigh_taps(float (&weight)[TAPS], float fraction, const float* table) {
#if LINEAR
    weight[0] = 1.0f - fraction;
    weight[1] = fraction;
#else
    const float position = fminf(fraction * TABLE, TABLE);
    const int j = (int)position;
    const float between = position - (float)j;
#pragma unroll
    for (int k = 0; k < TAPS; ++k) {
        const float low = table[j * TAPS + k], high = table[(j + 1) * TAPS + k];
        weight[k] = fmaf(between, high - low, low);
    }
#endif
}

// The sum of the samples at `place`, number `first` of their record, weighed; those outside the record are 0, where they are
// not known to be INSIDE.
template <bool INSIDE>
__device__ inline Sample interpolate(const Sample* place, int n_samples, int first, const float (&weight)[TAPS]) {
    Sample value = zero();
#pragma unroll
    for (int k = 0; k < TAPS; ++k)
        if (INSIDE || (unsigned)(first + k) < (unsigned)n_samples) add(value, weight[k], place[k]);
    return value;
}

// One element to a pixel and its transmits.
struct Receiver {
    int first;      // whole samples, with the interpolation's first tap
    float rest;     // of a sample, 0 to 1
    float2 factor;  // of IQ: phase and taper; of RF: x, the taper
};

// An element's channels, of TRANSMITS transmits and FRAMES frames, to the sums of a pixel. `record` is that of the first
// transmit, `place` whole samples from its begin on, the others' records `stride` apart.
template <bool INSIDE>
__device__ inline void add_channels(
    Sample (&sums)[TRANSMITS][FRAMES], const int (&place)[TRANSMITS], const float (&part)[TRANSMITS],
    const float (&transmit_weight)[TRANSMITS], Receiver receiver, const Sample* record, const unsigned char* receiving,
    int n_elements, int stride, long long frame_size, int n_samples, const float* table
) {
#pragma unroll
    for (int a = 0; a < TRANSMITS; ++a) {
#if MASKED
        if (!receiving[a * n_elements]) continue;
#endif
#if WEIGHTED
        if (transmit_weight[a] == 0.0f) continue;
#endif
        const float sum = part[a] + receiver.rest;  // 0 to 2
        const bool carry = sum >= 1.0f;
        const int at = place[a] + receiver.first + (int)carry;
        float weight[TAPS];
        weigh_taps(weight, carry ? sum - 1.0f : sum, table);
        const Sample* frame = record + at;
#pragma unroll
        for (int f = 0; f < FRAMES; ++f, frame += frame_size) {
            const Sample value = interpolate<INSIDE>(frame, n_samples, at - a * stride, weight);
#if IQ
            const float2 turn = receiver.factor;
            sums[a][f].x = fmaf(turn.x, value.x, fmaf(-turn.y, value.y, sums[a][f].x));
            sums[a][f].y = fmaf(turn.x, value.y, fmaf(turn.y, value.x, sums[a][f].y));
#else
            sums[a][f] = fmaf(receiver.factor.x, value, sums[a][f]);
#endif
        }
    }
}

// Block (tile of pixels, group of frames). Images (frames, nz, nx) of samples (frames, transmits, elements, n_samples).
extern "C" __global__ void __launch_bounds__(THREADS, 4) delay_and_sum(
    const Sample* samples, const Position* columns, const Position* rows,  // x of (nx), z of (nz); if POINTS x, z of (nz, nx)
    const unsigned char* in_front, const int* transmit_whole, const float* transmit_part, // (nz, nx); (transmits, nz, nx)
    const float* transmit_phase,                                                          // (transmits) cycles at index 0
    const Element* elements, const float* table, const Das* constants,
    const unsigned char* receiving, const float* live,  // (transmits, elements); share of the transmits (elements): if MASKED
    const float* gains,                                 // (elements): if WINDOWED
    const float* weights,                               // (transmits, nz, nx): if WEIGHTED
    int n_frames, int n_transmits, int n_elements, int n_samples, int nx, int nz, int first_tap, int normalize, Sample* images
) {
    const int tiles = (nx + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int column = blockIdx.x % tiles * TILE_COLUMNS + threadIdx.x % TILE_COLUMNS;
    const int row = blockIdx.x / tiles * TILE_ROWS + threadIdx.x / TILE_COLUMNS;
    if (column >= nx || row >= nz) return;
    const int first_frame = min((int)blockIdx.y * FRAMES, n_frames - FRAMES);
    const long long n_pixels = (long long)nx * nz, pixel = (long long)row * nx + column;
    const long long frame_size = (long long)n_transmits * n_elements * n_samples;
    const int stride = TRANSMITS > 1 ? n_elements * n_samples : 0;  // x TRANSMITS it is below LARGEST_GROUP
    const Das das = *constants;
#if POINTS
    const Position here = columns[pixel];
    const float x = here.x, x_rest = here.x_rest, z = here.z, z_rest = here.z_rest;
#else
    const float x = columns[column].x, x_rest = columns[column].x_rest, z = rows[row].z, z_rest = rows[row].z_rest;
#endif
    float n_active = 0.0f;
#if COMPOUNDING < 2
    Sample total[FRAMES];
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) total[f] = zero();
#endif

    for (int begin = 0; begin < n_transmits && in_front[pixel]; begin += TRANSMITS) {
        const int first = min(begin, n_transmits - TRANSMITS);
        int place[TRANSMITS];
        float part[TRANSMITS];
        Sample sums[TRANSMITS][FRAMES];
        float weight[TRANSMITS];
#if WEIGHTED
        bool counts = false;
#pragma unroll
        for (int a = 0; a < TRANSMITS; ++a) {
            weight[a] = weights[(first + a) * n_pixels + pixel];
            counts |= weight[a] != 0.0f && first + a >= begin;
        }
        if (!counts) continue;  // neighbors mostly agree: a beam is wider than a warp
#endif
        int lowest = 1 << 30, highest = -(1 << 30);  // of the transmits that are read
#pragma unroll
        for (int a = 0; a < TRANSMITS; ++a) {
#if !WEIGHTED
            weight[a] = 1.0f;
#endif
            const int whole = transmit_whole[(first + a) * n_pixels + pixel];
            place[a] = whole + a * stride;
            part[a] = transmit_part[(first + a) * n_pixels + pixel];
#pragma unroll
            for (int f = 0; f < FRAMES; ++f) sums[a][f] = zero();
            if (weight[a] == 0.0f) continue;
            lowest = min(lowest, whole);
            highest = max(highest, whole);
        }
        n_active = 0.0f;
        for (int e = 0; e < n_elements; ++e) {
#if MASKED
            if (live[e] == 0.0f) continue;
#endif
            const Element element = elements[e];
            const float dx = x - element.at.x, dz = z - element.at.z;
            const float square = fmaxf(dx * dx + dz * dz, 1e-18f), distance = square * rsqrtf(square);
            const float toward = fabsf(dz) * element.cosine + dx * element.sine;
            if (toward < das.cos_acceptance * distance) continue;
#if WINDOWED
            // Coarse positions alone are off by 0.1 um, a weight by 3e-5.
            const float taper = gains[e] * window_at(
                dx + (x_rest - element.at.x_rest), dz + (z_rest - element.at.z_rest), element, das
            );
            if (taper == 0.0f) continue;
#else
            const float taper = 1.0f;
#endif
#if MASKED
            n_active += taper * live[e];
#else
            n_active += taper;
#endif
            const float2 there =
                distance_samples(dx, dz, x_rest - element.at.x_rest, z_rest - element.at.z_rest, distance, das);
            const float near = there.y + element.delay_rest, carry = floorf(near);
            const float receive_whole = there.x + element.delay + carry, receive_part = near - carry;
            Receiver receiver;
            receiver.first = (int)fminf(fmaxf(receive_whole, -5e8f), 5e8f) + first_tap;  // with `whole` no overflow
            receiver.rest = receive_part;
#if IQ
            const float2 turn = rotation(sample_cycles(receive_whole, receive_part, das));
            receiver.factor = make_float2(taper * turn.x, taper * turn.y);
#else
            receiver.factor = make_float2(taper, 0.0f);
#endif
            const Sample* record = samples + first_frame * frame_size + ((long long)first * n_elements + e) * n_samples;
            const unsigned char* heard = receiving + first * n_elements + e;
            if (lowest + receiver.first >= 0 && highest + receiver.first + TAPS < n_samples)  // and one more, the carry
                add_channels<true>(
                    sums, place, part, weight, receiver, record, heard, n_elements, stride, frame_size, n_samples, table
                );
            else
                add_channels<false>(
                    sums, place, part, weight, receiver, record, heard, n_elements, stride, frame_size, n_samples, table
                );
        }
#pragma unroll
        for (int a = 0; a < TRANSMITS; ++a) {
            if (first + a < begin) continue;  // it was counted
#if IQ
            const float2 turn = rotation(sample_cycles((float)(place[a] - a * stride), part[a], das) + transmit_phase[first + a]);
#endif
#pragma unroll
            for (int f = 0; f < FRAMES; ++f) {
                Sample value = sums[a][f];
#if IQ
                value = multiply(turn, value);
#endif
#if WEIGHTED
                const Sample unweighted = value;
                value = zero();
                add(value, weight[a], unweighted);
#endif
#if COMPOUNDING == 0
                add(total[f], 1.0f, value);
#elif COMPOUNDING == 1
                add_power(total[f], value);
#else
                if (first_frame + f < (int)blockIdx.y * FRAMES) continue;
                Sample alone = zero();
                add(alone, normalize && n_active > 0.0f ? 1.0f / n_active : 1.0f, value);
                images[((long long)(first_frame + f) * n_transmits + first + a) * n_pixels + pixel] = alone;
#endif
            }
        }
    }
#if COMPOUNDING < 2
    const float scale = normalize && n_active > 0.0f ? 1.0f / n_active : 1.0f;
#pragma unroll
    for (int f = 0; f < FRAMES; ++f) {
        if (first_frame + f < (int)blockIdx.y * FRAMES) continue;  // another block's
#if COMPOUNDING == 1
        take_root(total[f]);
#endif
        Sample value = zero();
        add(value, scale, total[f]);
        images[(first_frame + f) * n_pixels + pixel] = value;
    }
#endif
}

// First and last arrival (laws, points): min and max over sources of delay + distance / speed. Float64, once a grid.
extern "C" __global__ void __launch_bounds__(THREADS) arrival_bounds(
    const double* x, const double* z, const double* source_x, const double* source_z, const double* delays,
    int n_points, int n_sources, int n_laws, double slowness, double* first_arrival, double* last_arrival
) {
    for (int p = blockIdx.x * blockDim.x + threadIdx.x; p < n_points; p += gridDim.x * blockDim.x) {
        for (int first = 0; first < n_laws; first += LAWS) {
            double low[LAWS], high[LAWS];
            const int n = min(LAWS, n_laws - first);
#pragma unroll
            for (int l = 0; l < LAWS; ++l) {
                low[l] = 1e300;
                high[l] = -1e300;
            }
            for (int s = 0; s < n_sources; ++s) {
                const double dx = x[p] - source_x[s], dz = z[p] - source_z[s];
                const double way = sqrt(dx * dx + dz * dz) * slowness;
#pragma unroll
                for (int l = 0; l < LAWS; ++l) {
                    const double time = delays[(long long)(first + min(l, n - 1)) * n_sources + s] + way;
                    low[l] = time < low[l] ? time : low[l];
                    high[l] = time > high[l] ? time : high[l];
                }
            }
#pragma unroll
            for (int l = 0; l < LAWS; ++l) {
                if (l >= n) continue;
                first_arrival[(long long)(first + l) * n_points + p] = low[l];
                last_arrival[(long long)(first + l) * n_points + p] = high[l];
            }
        }
    }
}

#if COMPENSATED
// A number as the sum of two of float32: 48 bits. (Dekker 1971; what is rounded off is found by Knuth's sum and by fma.)
struct Real {
    float high, low;
};
__device__ inline Real real(float value) { return {value, 0.0f}; }
__device__ inline Real real(double value) { return {(float)value, (float)(value - (double)(float)value)}; }
__device__ inline float rounded(Real a) { return a.high; }
__device__ inline Real minus(Real a) { return {-a.high, -a.low}; }
__device__ inline Real exact_product(float a, float b) {
    const float high = a * b;
    return {high, fmaf(a, b, -high)};
}
// a b + c
__device__ inline Real multiply_add(Real a, Real b, Real c) {
    const float product = a.high * b.high;
    const float product_rest = fmaf(a.high, b.low, fmaf(a.low, b.high, fmaf(a.high, b.high, -product)));
    const float sum = product + c.high, part = sum - product;
    const float rest = ((product - (sum - part)) + (c.high - part)) + (product_rest + c.low);
    const float high = sum + rest;
    return {high, rest - (high - sum)};
}
#else
typedef double Real;
__device__ inline Real real(double value) { return value; }
__device__ inline float rounded(Real a) { return (float)a; }
__device__ inline Real minus(Real a) { return -a; }
__device__ inline Real exact_product(float a, float b) { return (double)a * b; }
__device__ inline Real multiply_add(Real a, Real b, Real c) { return fma(a, b, c); }
#endif

// A filter of order FILTER_ORDER at work on one complex channel: direct form II transposed.
struct Filter {
    Real numerator[FILTER_ORDER + 1], denominator[FILTER_ORDER + 1], steady[FILTER_ORDER];  // denominator: its negative
    Real re[FILTER_ORDER + 1], im[FILTER_ORDER + 1];

    __device__ void start(Real x, Real y) {
        const Real zero = real(0.0);
#pragma unroll
        for (int i = 0; i < FILTER_ORDER; ++i) {
            re[i] = multiply_add(steady[i], x, zero);
            im[i] = multiply_add(steady[i], y, zero);
        }
        re[FILTER_ORDER] = im[FILTER_ORDER] = zero;
    }

    __device__ void next(Real& x, Real& y) {
        const Real u = multiply_add(numerator[0], x, re[0]), v = multiply_add(numerator[0], y, im[0]);
#pragma unroll
        for (int i = 0; i < FILTER_ORDER; ++i) {
            re[i] = multiply_add(denominator[i + 1], u, multiply_add(numerator[i + 1], x, re[i + 1]));
            im[i] = multiply_add(denominator[i + 1], v, multiply_add(numerator[i + 1], y, im[i + 1]));
        }
        x = u;
        y = v;
    }
};

// filtfilt(samples x carrier) as cpu/beamform.mix_and_filter has it: odd extension by `edge`, the filter started in the state
// that a constant equal to the first sample would leave. A thread a channel; float64 or as good, as a narrow filter needs it.
extern "C" __global__ void __launch_bounds__(THREADS) mix_and_filter(
    const float* samples, const float2* carrier, const double* numerator, const double* denominator, const double* steady,
    long long n_channels, int n_samples, int edge, float2* out
) {
    Filter filter;
    for (int i = 0; i <= FILTER_ORDER; ++i) {
        filter.numerator[i] = real(numerator[i]);
        filter.denominator[i] = minus(real(denominator[i]));
        if (i < FILTER_ORDER) filter.steady[i] = real(steady[i]);
    }
    const Real two = real(2.0);
    for (long long c = (long long)blockIdx.x * blockDim.x + threadIdx.x; c < n_channels;
         c += (long long)gridDim.x * blockDim.x) {
        const float* record = samples + c * n_samples;
        float2* channel = out + c * n_samples;
        Real tail_re[FILTER_EDGE], tail_im[FILTER_EDGE];
        const int last = n_samples - 1;
        for (int i = -edge; i <= last + edge; ++i) {
            const int j = i < 0 ? -i : i > last ? 2 * last - i : i;
            Real x = exact_product(record[j], carrier[j].x), y = exact_product(record[j], carrier[j].y);
            if (j != i) {
                const int end = i < 0 ? 0 : last;
                x = multiply_add(two, exact_product(record[end], carrier[end].x), minus(x));
                y = multiply_add(two, exact_product(record[end], carrier[end].y), minus(y));
            }
            if (i == -edge) filter.start(x, y);
            filter.next(x, y);
            if (i > last) {
                tail_re[i - last - 1] = x;
                tail_im[i - last - 1] = y;
            } else if (i >= 0) {
                channel[i] = make_float2(rounded(x), rounded(y));
            }
        }
        for (int i = last + edge; i >= 0; --i) {
            Real x = i > last ? tail_re[i - last - 1] : real(channel[i].x);
            Real y = i > last ? tail_im[i - last - 1] : real(channel[i].y);
            if (i == last + edge) filter.start(x, y);
            filter.next(x, y);
            if (i <= last) channel[i] = make_float2(rounded(x), rounded(y));
        }
    }
}
