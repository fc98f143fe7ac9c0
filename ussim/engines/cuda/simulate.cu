// Echoes of scatterers in cells, cell by cell and frequency by frequency (Garcia 2022; ussim/cells.py for the windows).
//
//   transmit    P_a(s, f) = Σ_e D_a(e, f) G(s, e, f)              then Q = reflectivity P
//   receive     R_a(e, f) = spectrum(f) Σ_s Q_a(s, f) G(s, e, f)
//   accumulate  the record += the inverse transforms of conj(R), each at its place
//   energy      Σ_f |spectrum(f) P_a(s, f)|², for a pressure field
//
// and the transpose in the reflectivity, of a record y:
//   gather      windows of y, and by their transforms Z_a(e, f)
//   project     Re Σ_f Σ_a P_a(s, f) Σ_e 2 spectrum(f) Z_a(e, f) G(s, e, f), by parts of the frequencies
//   fold        the sum of those parts
//
// Transmit and receive are one loop: a sum over `inner` (elements, then scatterers) of weight x G for the points in the
// lanes (scatterers, then elements). A block works on TILE_POINTS points and CHUNK frequencies of one cell; a thread holds
// POINTS x FREQUENCIES x TRANSMITS complex sums in registers. G of INNER elements or scatterers is made once a block, in
// shared memory, for all transmits: one exponential a sub-element, then a complex product from frequency to frequency.
//
// Sizes, as -D: TRANSMITS, POINTS, FREQUENCIES (even), GROUPS, INNER, N_SUB, FULL_DIRECTIVITY (0 or 1), ELEVATED (0, or 1 in
// three dimensions: the beam in elevation is evaluated at the ends and in the middle of a box's segments of frequencies, and
// between them is the polynomial through those values and slopes; ussim/elevation.py).
// docs/gpu.md has the arithmetic behind them.

#include "physics.cuh"

#define LANES 32
#define THREADS (LANES * GROUPS)
#define TILE_POINTS (LANES * POINTS)
#define CHUNK (GROUPS * FREQUENCIES)
#define ROW (TRANSMITS * FREQUENCIES)  // weights of one (inner, group), in complex numbers
#define RECORD_THREADS 128
#define RECORD_SAMPLES 8  // of the record a thread of `accumulate` holds

#if ELEVATED
typedef float4 Local;  // of a point: x and z from the box's center, m; y² less the center's, m²; nothing
#else
typedef float2 Local;  // x and z from the box's center, m
#endif

// What does not change with frequency along the way from one sub-element to one point.
struct __align__(16) Ray {
    float amplitude;  // 0 where there is no point
    float delay;      // samples after the reference
    float distance;   // m
    float sin_theta;  // used with FULL_DIRECTIVITY only
};

// A box's view of one element.
struct __align__(16) Sight {
    float dx, dz;    // m, element to the box's center
    float distance;  // m, the length of (dx, dz), with the center's y
    float offset;    // samples, that distance less the whole-sample reference
};

// The acquisition, in numbers that all kernels share.
struct Physics {
    float samples_per_meter;
    float minimum_distance;  // m
    float baffle;
    float half_width_wavenumber;  // at the center frequency
    float half_width_per_cycle;   // k L / 2 at one cycle a sample, for FULL_DIRECTIVITY
    float sub_width;              // m
    float loss_per_cycle;         // attenuation at one cycle a sample, base-2 exponents per meter
    float wavenumber_per_cycle;   // at one cycle a sample, rad/m
    float lens_height;            // m, for ELEVATED
    float lens_vergence;          // 1/m, of the focus in elevation
};

// Frequencies and references of a box.
struct __align__(16) Box {
    int n;          // samples of the window
    int first_bin;  // frequencies are bins of sampling_frequency / n
    int n_bins;
    int start;        // window start modulo n
    int begin;        // window start, samples
    int spectrum;     // where the table of its n begins
    int segment;      // frequencies over which the beam in elevation is a polynomial, even
    float square_y;   // of the center, m²
};

#if ELEVATED
// Distance from a sub-element to a point, floored.
__device__ inline float way_to(Sight sight, Local local, float along, float2 normal, float square_y, Physics p) {
    const float dx = sight.dx + (local.x - along * normal.y), dz = sight.dz + (local.y + along * normal.x);
    const float square = fmaxf(dx * dx + dz * dz + square_y, 1e-24f);
    return fmaxf(square * rsqrtf(square), p.minimum_distance);
}
#endif

__device__ inline Ray make_ray(
    Sight sight, Local local, float along, float sin_element, float cos_element, float square_y, Physics p
) {
    // w: what the point and the sub-element add to (dx, dz). The distance less that to the center is taken from w, not as
    // a difference of two large numbers.
    const float wx = local.x - along * cos_element, wz = local.y + along * sin_element;
    const float dx = sight.dx + wx, dz = sight.dz + wz;
    const float square = fmaxf(dx * dx + dz * dz, 1e-24f), distance_in_plane = square * rsqrtf(square);
    const float2 theta = incidence(dx, dz, distance_in_plane, sin_element, cos_element);
#if ELEVATED
    const float whole = square + square_y, distance = whole * rsqrtf(whole), up = local.z;
    const float further = quotient(wx * (sight.dx + dx) + wz * (sight.dz + dz) + up, distance + sight.distance);
#else
    const float distance = distance_in_plane;
    const float further = quotient(wx * (sight.dx + dx) + wz * (sight.dz + dz), distance + sight.distance);
#endif
    const bool floored = distance < p.minimum_distance;
    Ray ray;
    ray.distance = floored ? p.minimum_distance : distance;
    ray.delay = (floored ? p.minimum_distance - sight.distance : further) * p.samples_per_meter + sight.offset;
#if ELEVATED
    ray.amplitude = obliquity(theta.y, p.baffle) * __fdividef(1.0f / N_SUB, ray.distance);
#else
    ray.amplitude = obliquity(theta.y, p.baffle) * rsqrtf(ray.distance) * (1.0f / N_SUB);
#endif
    ray.sin_theta = theta.x;
#if !FULL_DIRECTIVITY
    ray.amplitude *= directivity(theta.x, p.half_width_wavenumber);
#endif
    return ray;
}

// Factor from one frequency to the next, 1 / n cycles per sample apart.
__device__ inline float2 make_step(Ray ray, float inverse_n, Physics p) {
    const float2 turn = rotation(ray.delay * inverse_n);
    const float loss = exp2f(-p.loss_per_cycle * inverse_n * ray.distance);
    return make_float2(turn.x * loss, turn.y * loss);
}

// What a sub-element adds to G at the CHUNK frequencies from `first_frequency` (cycles per sample) on; the first one sets it.
template <bool FIRST>
__device__ inline void add_sub_element(float2 (&response)[CHUNK], Ray ray, float first_frequency, float inverse_n, Physics p) {
    const float2 step = make_step(ray, inverse_n, p), turn = rotation(ray.delay * first_frequency);
    const float size = ray.amplitude * exp2f(-p.loss_per_cycle * first_frequency * ray.distance);
    float2 value = make_float2(size * turn.x, size * turn.y);
#pragma unroll
    for (int j = 0; j < CHUNK; ++j) {
#if FULL_DIRECTIVITY
        const float weight = directivity(ray.sin_theta, p.half_width_per_cycle * (first_frequency + (float)j * inverse_n));
        const float2 added = make_float2(weight * value.x, weight * value.y);
#else
        const float2 added = value;
#endif
        response[j] = FIRST ? added : make_float2(response[j].x + added.x, response[j].y + added.y);
        if (j + 1 < CHUNK) value = multiply(value, step);
    }
}

#if ELEVATED
// Value at `t` of 1 of the polynomial of degree five through three nodes' values and slopes (Hermite).
__device__ inline float quintic(float f0, float d0, float f1, float d1, float f2, float d2, float t) {
    const float a = f1 - f0 - 0.5f * d0, b = f2 - f0 - d0;  // less the tangent at 0: of the size of its bend
    const float c = d1 - d0, d = d2 - d0;
    const float a2 = 16.0f * a + 7.0f * b - 8.0f * c - d, a3 = -32.0f * a - 34.0f * b + 32.0f * c + 5.0f * d;
    const float a4 = 16.0f * a + 52.0f * b - 40.0f * c - 8.0f * d, a5 = -24.0f * b + 16.0f * c + 4.0f * d;
    return fmaf(t, fmaf(t, fmaf(t, fmaf(t, fmaf(t, a5, a4), a3), a2), d0), f0);
}

// Multiplies G of one element and one point at CHUNK frequencies by the beam in elevation.
__device__ inline void apply_beam(
    float4* out, float inverse_distance, float square_y, int segment, float first_frequency, float inverse_n, Physics p
) {
    const float step = p.wavenumber_per_cycle * inverse_n, length = (float)segment * step;
    const float inverse_length = __fdividef(1.0f, (float)segment);
    float start = p.wavenumber_per_cycle * first_frequency;
    Node begin = elevation_beam(start, length, inverse_distance, square_y, p.lens_height, p.lens_vergence);
#pragma unroll 1
    for (int first = 0; first < CHUNK; first += segment, start += length) {
        const Node middle =
            elevation_beam(start + 0.5f * length, length, inverse_distance, square_y, p.lens_height, p.lens_vergence);
        const Node end = elevation_beam(start + length, length, inverse_distance, square_y, p.lens_height, p.lens_vergence);
#pragma unroll 1
        for (int j = 0; j < segment && first + j < CHUNK; j += 2) {
            float2 beam[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float t = (float)(j + i) * inverse_length;
                beam[i].x = quintic(begin.value.x, begin.slope.x, middle.value.x, middle.slope.x, end.value.x, end.slope.x, t);
                beam[i].y = quintic(begin.value.y, begin.slope.y, middle.value.y, middle.slope.y, end.value.y, end.slope.y, t);
            }
            float4& g = out[(first + j) / 2 * TILE_POINTS];
            const float2 u = multiply(make_float2(g.x, g.y), beam[0]), v = multiply(make_float2(g.z, g.w), beam[1]);
            g = make_float4(u.x, u.y, v.x, v.y);
        }
        begin = end;
    }
}
#endif

// G of one element and one point, in pairs of frequencies: out[pair * TILE_POINTS].
__device__ inline void stage_response(
    float4* out, Sight sight, Local local, float2 normal, Box box, float first_frequency, float inverse_n, Physics p
) {
    float2 response[CHUNK];
    const float along = -0.5f * (N_SUB - 1) * p.sub_width;
#if ELEVATED
    const float square_y = fmaxf(box.square_y + local.z, 0.0f);
    float distance = 0.0f;
#pragma unroll 1
    for (int m = 0; m < N_SUB; ++m) distance += way_to(sight, local, along + (float)m * p.sub_width, normal, square_y, p);
    const float inverse_distance = __fdividef((float)N_SUB, distance);
    sight.offset += 0.5f * square_y * inverse_distance * p.samples_per_meter;  // `elevation_path`
#else
    const float square_y = 0.0f;
#endif
    const Ray first_ray = make_ray(sight, local, along, normal.x, normal.y, square_y, p);
    add_sub_element<true>(response, first_ray, first_frequency, inverse_n, p);
#pragma unroll 1
    for (int m = 1; m < N_SUB; ++m) {
        const Ray ray = make_ray(sight, local, along + (float)m * p.sub_width, normal.x, normal.y, square_y, p);
        add_sub_element<false>(response, ray, first_frequency, inverse_n, p);
    }
#pragma unroll
    for (int pair = 0; pair < CHUNK / 2; ++pair) {
        const float2 g = response[2 * pair], h = response[2 * pair + 1];
        out[pair * TILE_POINTS] = make_float4(g.x, g.y, h.x, h.y);
    }
#if ELEVATED
    apply_beam(out, inverse_distance, square_y, box.segment, first_frequency, inverse_n, p);
#endif
}

// sums[a][point][j] += Σ_i weights[i][group][a][j] G[i][group][point][j]: the inner loop of transmit and receive.
__device__ inline void add_products(
    float2 (&sums)[TRANSMITS][POINTS][FREQUENCIES], const float2* weights, const float4* responses, int n_inner, int lane,
    int group
) {
#pragma unroll 1
    for (int i = 0; i < n_inner; ++i) {
        const float4* row = (const float4*)(weights + (i * GROUPS + group) * ROW);
        const float4* response = responses + (i * GROUPS + group) * (FREQUENCIES / 2) * TILE_POINTS + lane;
        float4 g[POINTS][FREQUENCIES / 2];
#pragma unroll
        for (int point = 0; point < POINTS; ++point)
#pragma unroll
            for (int pair = 0; pair < FREQUENCIES / 2; ++pair) g[point][pair] = response[pair * TILE_POINTS + point * LANES];
#pragma unroll
        for (int a = 0; a < TRANSMITS; ++a) {
#pragma unroll
            for (int pair = 0; pair < FREQUENCIES / 2; ++pair) {
                const float4 w = row[a * (FREQUENCIES / 2) + pair];  // one load, all lanes the same address
#pragma unroll
                for (int point = 0; point < POINTS; ++point) {
                    const float4 v = g[point][pair];
                    float2& s = sums[a][point][2 * pair];
                    s.x = fmaf(w.x, v.x, fmaf(-w.y, v.y, s.x));
                    s.y = fmaf(w.x, v.y, fmaf(w.y, v.x, s.y));
                    float2& t = sums[a][point][2 * pair + 1];
                    t.x = fmaf(w.z, v.z, fmaf(-w.w, v.w, t.x));
                    t.y = fmaf(w.z, v.w, fmaf(w.w, v.z, t.y));
                }
            }
        }
    }
}

__device__ inline void clear(float2 (&sums)[TRANSMITS][POINTS][FREQUENCIES]) {
#pragma unroll
    for (int a = 0; a < TRANSMITS; ++a)
#pragma unroll
        for (int point = 0; point < POINTS; ++point)
#pragma unroll
            for (int j = 0; j < FREQUENCIES; ++j) sums[a][point][j] = make_float2(0.0f, 0.0f);
}

// G of a tile's points to `n_inner` elements from `first` on, into shared memory.
__device__ inline void stage_elements(
    float4* responses, const Sight* sights, const float2* element_normal, const Local* local, int n_points, int first,
    int n_inner, Box box, float first_frequency, float inverse_n, Physics p
) {
    for (int k = threadIdx.x; k < n_inner * TILE_POINTS; k += blockDim.x) {
        const int point = k % TILE_POINTS, i = k / TILE_POINTS, e = first + i;
        stage_response(responses + i * (CHUNK / 2) * TILE_POINTS + point, sights[e], local[min(point, n_points - 1)],
                       element_normal[e], box, first_frequency, inverse_n, p);
    }
}

// D of one element and transmit at a block's CHUNK frequencies, by rotation from each to the next: set, or added to.
template <bool SET>
__device__ inline void stage_weights(
    float2* column, float weight, float whole, float part, int first_bin, int n, float inverse_n
) {
    const float2 step = rotation(bin_cycles(1, n, inverse_n, whole, part));
    float2 value = rotation(bin_cycles(first_bin, n, inverse_n, whole, part));
    value = make_float2(weight * value.x, weight * value.y);
#pragma unroll
    for (int g = 0; g < GROUPS; ++g)
#pragma unroll
        for (int j = 0; j < FREQUENCIES; ++j) {
            float2& out = column[g * ROW + j];
            out = SET ? value : make_float2(out.x + value.x, out.y + value.y);
            value = multiply(value, step);
        }
}

// Block (tile, chunk). Q of a cell is [chunk][scatterer][group][transmit][frequency of the group], from q_begin.
extern "C" __global__ void __launch_bounds__(THREADS, 2) transmit(
    const int* tile_cell, const int* tile_first,                                          // (tiles): cell; scatterer in it
    const int* cell_box, const int* cell_first, const int* cell_count, const long long* q_begin,  // (cells)
    const Box* boxes, const Sight* sights, const int* element_reference,                  // (boxes), (boxes, elements) x 2
    const int* transmit_reference,                                                        // (boxes, transmits)
    const float2* element_normal,                                                         // (elements): sin, cos
    const Local* local, const float* reflectivity,                                        // (scatterers)
    const int* delay_whole, const float* delay_part, const float* weight,                 // (transmits, foci, elements)
    int n_elements, int n_foci, int n_transmits, int first_transmit, const Physics* physics, float2* q
) {
    __shared__ __align__(16) float2 weights[INNER * GROUPS * ROW];
    __shared__ __align__(16) float4 responses[INNER * (CHUNK / 2) * TILE_POINTS];

    const int cell = tile_cell[blockIdx.x], chunk = blockIdx.y;
    const int box_index = cell_box[cell];
    const Box box = boxes[box_index];
    if (chunk * CHUNK >= box.n_bins) return;
    const Physics p = *physics;
    const float inverse_n = 1.0f / (float)box.n;
    const int first_point = tile_first[blockIdx.x];
    const int n_points = min(TILE_POINTS, cell_count[cell] - first_point);
    const int first_scatterer = cell_first[cell] + first_point;
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const int first_bin = box.first_bin + chunk * CHUNK;

    float2 sums[TRANSMITS][POINTS][FREQUENCIES];
    clear(sums);
    for (int first = 0; first < n_elements; first += INNER) {
        const int n_inner = min(INNER, n_elements - first);
        __syncthreads();
        stage_elements(responses, sights + (long long)box_index * n_elements, element_normal, local + first_scatterer,
                       n_points, first, n_inner, box, (float)first_bin * inverse_n, inverse_n, p);
        for (int k = threadIdx.x; k < n_inner * TRANSMITS; k += blockDim.x) {
            const int a = k % TRANSMITS, i = k / TRANSMITS, e = first + i, transmit = first_transmit + a;
            float2* column = weights + i * GROUPS * ROW + a * FREQUENCIES;
            if (transmit >= n_transmits) {
                stage_weights<true>(column, 0.0f, 0.0f, 0.0f, first_bin, box.n, inverse_n);
                continue;
            }
            const int arrival = element_reference[(long long)box_index * n_elements + e]
                - transmit_reference[(long long)box_index * n_transmits + transmit];
            for (int focus = 0; focus < n_foci; ++focus) {
                const int law = (transmit * n_foci + focus) * n_elements + e;
                const float whole = (float)(arrival + delay_whole[law]);
                if (focus == 0)
                    stage_weights<true>(column, weight[law], whole, delay_part[law], first_bin, box.n, inverse_n);
                else if (weight[law] != 0.0f)
                    stage_weights<false>(column, weight[law], whole, delay_part[law], first_bin, box.n, inverse_n);
            }
        }
        __syncthreads();
        add_products(sums, weights, responses, n_inner, lane, group);
    }
#pragma unroll
    for (int point = 0; point < POINTS; ++point) {
        const int s = point * LANES + lane;
        if (s >= n_points) continue;
        const float strength = reflectivity[first_scatterer + s];
        const long long row = ((long long)chunk * cell_count[cell] + first_point + s) * GROUPS + group;
        float4* out = (float4*)(q + q_begin[cell] + row * ROW);
#pragma unroll
        for (int a = 0; a < TRANSMITS; ++a)
#pragma unroll
            for (int pair = 0; pair < FREQUENCIES / 2; ++pair) {
                const float2 u = sums[a][point][2 * pair], v = sums[a][point][2 * pair + 1];
                out[a * (FREQUENCIES / 2) + pair] =
                    make_float4(strength * u.x, strength * u.y, strength * v.x, strength * v.y);
            }
    }
}

// Block (cell and tile of elements, chunk). Spectra of a cell are [transmit][element][n / 2 + 1] conj(R), from echo_begin;
// bins outside the band are left as they are (zero).
extern "C" __global__ void __launch_bounds__(THREADS, 2) receive(
    const int* cell_box, const int* cell_first, const int* cell_count, const long long* q_begin,
    const long long* echo_begin,                                                          // (cells), complex numbers
    const Box* boxes, const Sight* sights,
    const float2* element_normal, const float* receive_part,                              // (elements): samples
    const Local* local, const float2* spectra, const float2* q,
    int n_elements, int n_used_transmits, int element_tiles, const Physics* physics, float2* echoes
) {
    __shared__ __align__(16) float2 weights[INNER * GROUPS * ROW];
    __shared__ __align__(16) float4 responses[INNER * (CHUNK / 2) * TILE_POINTS];

    const int cell = blockIdx.x / element_tiles, chunk = blockIdx.y;
    const int first_element = blockIdx.x % element_tiles * TILE_POINTS;
    const int box_index = cell_box[cell];
    const Box box = boxes[box_index];
    if (chunk * CHUNK >= box.n_bins) return;
    const Physics p = *physics;
    const float inverse_n = 1.0f / (float)box.n;
    const int count = cell_count[cell], first_scatterer = cell_first[cell];
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const int first_bin = box.first_bin + chunk * CHUNK + group * FREQUENCIES;

    float2 sums[TRANSMITS][POINTS][FREQUENCIES];
    clear(sums);
    for (int first = 0; first < count; first += INNER) {
        const int n_inner = min(INNER, count - first);
        __syncthreads();
        for (int k = threadIdx.x; k < n_inner * TILE_POINTS; k += blockDim.x) {
            const int point = k % TILE_POINTS, i = k / TILE_POINTS, e = min(first_element + point, n_elements - 1);
            stage_response(responses + i * (CHUNK / 2) * TILE_POINTS + point, sights[(long long)box_index * n_elements + e],
                           local[first_scatterer + first + i], element_normal[e], box,
                           (float)(box.first_bin + chunk * CHUNK) * inverse_n, inverse_n, p);
        }
        const float4* from = (const float4*)(q + q_begin[cell] + ((long long)chunk * count + first) * GROUPS * ROW);
        for (int k = threadIdx.x; k < n_inner * GROUPS * ROW / 2; k += blockDim.x) ((float4*)weights)[k] = from[k];
        __syncthreads();
        add_products(sums, weights, responses, n_inner, lane, group);
    }
#pragma unroll
    for (int point = 0; point < POINTS; ++point) {
        const int e = first_element + point * LANES + lane;
        if (e >= n_elements) continue;
#pragma unroll
        for (int j = 0; j < FREQUENCIES; ++j) {
            const int bin = first_bin + j;
            if (bin >= box.first_bin + box.n_bins) continue;
            const float2 factor =
                multiply(spectra[box.spectrum + bin], rotation((float)bin * inverse_n * receive_part[e]));
#pragma unroll
            for (int a = 0; a < TRANSMITS; ++a) {
                if (a >= n_used_transmits) continue;
                const float2 value = multiply(factor, sums[a][point][j]);
                const long long channel = (long long)a * n_elements + e;
                echoes[echo_begin[cell] + channel * (box.n / 2 + 1) + bin] = make_float2(value.x, -value.y);
            }
        }
    }
}

// Block (image, transmit, element; stretch of the record). Each sample is summed by one thread, cells in their order.
extern "C" __global__ void __launch_bounds__(RECORD_THREADS) accumulate(
    const int* image_first, const int* image_cells,                                       // (images + 1); cells of each
    const int* cell_box, const long long* window_begin,                                   // (cells), samples
    const Box* boxes, const int* element_reference, const int* transmit_reference,
    const int* receive_whole, const float* windows,                                       // (elements) samples
    int n_elements, int n_transmits, int first_transmit, int n_used_transmits, int start_sample, long long n_samples,
    float* record                                                                         // (images, transmits, elements, n)
) {
    const int element = blockIdx.x % n_elements, a = blockIdx.x / n_elements % n_used_transmits;
    const int image = blockIdx.x / (n_elements * n_used_transmits), transmit = first_transmit + a;
    float* channel = record + (((long long)image * n_transmits + transmit) * n_elements + element) * n_samples;
    const int stretch = RECORD_THREADS * RECORD_SAMPLES;
    const int first = blockIdx.y * stretch;
    float sums[RECORD_SAMPLES];
#pragma unroll
    for (int k = 0; k < RECORD_SAMPLES; ++k) {
        const int t = first + k * RECORD_THREADS + threadIdx.x;
        sums[k] = t < n_samples ? channel[t] : 0.0f;
    }
    for (int c = image_first[image]; c < image_first[image + 1]; ++c) {
        const int cell = image_cells[c], box_index = cell_box[cell];
        const Box box = boxes[box_index];
        const int at = transmit_reference[(long long)box_index * n_transmits + transmit]
            + element_reference[(long long)box_index * n_elements + element] + receive_whole[element] + box.begin - start_sample;
        if (at >= first + stretch || at + box.n <= first) continue;
        const float* window = windows + window_begin[cell] + ((long long)a * n_elements + element) * box.n;
#pragma unroll
        for (int k = 0; k < RECORD_SAMPLES; ++k) {
            const int j = first + k * RECORD_THREADS + threadIdx.x - at;
            if (j < 0 || j >= box.n) continue;
            const int place = j + box.start;  // the window is periodic: its sample 0 lies at the reference
            sums[k] += window[place < box.n ? place : place - box.n];
        }
    }
#pragma unroll
    for (int k = 0; k < RECORD_SAMPLES; ++k) {
        const int t = first + k * RECORD_THREADS + threadIdx.x;
        if (t < n_samples) channel[t] = sums[k];
    }
}

// Energy (transmits, all points) of `transmit`'s Q over its frequencies, a thread a (point of the group, transmit).
extern "C" __global__ void energy(
    const int* point, const int* point_cell,                                              // (points of the group)
    const int* cell_box, const int* cell_first, const int* cell_count, const long long* q_begin,
    const Box* boxes, const float2* spectra, const float2* q,
    int n_points, int n_all_points, int first_transmit, int n_used_transmits, float* out
) {
    for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < (long long)n_points * n_used_transmits;
         k += (long long)gridDim.x * blockDim.x) {
        const int at = (int)(k / n_used_transmits), a = (int)(k % n_used_transmits);
        const int s = point[at], cell = point_cell[at], count = cell_count[cell];
        const Box box = boxes[cell_box[cell]];
        float sum = 0.0f;
        for (int i = 0; i < box.n_bins; ++i) {
            const long long row = ((long long)(i / CHUNK) * count + s - cell_first[cell]) * GROUPS + i % CHUNK / FREQUENCIES;
            const float2 value = multiply(q[q_begin[cell] + row * ROW + a * FREQUENCIES + i % FREQUENCIES],
                                          spectra[box.spectrum + box.first_bin + i]);
            sum = fmaf(value.x, value.x, fmaf(value.y, value.y, sum));
        }
        out[(long long)(first_transmit + a) * n_all_points + s] = sum;
    }
}

// Block (cell, transmit, element): a window of the record, zero outside it; where `accumulate` adds, this reads.
extern "C" __global__ void __launch_bounds__(RECORD_THREADS) gather(
    const int* cell_box, const long long* window_begin,                                   // (cells), samples
    const Box* boxes, const int* element_reference, const int* transmit_reference,
    const int* receive_whole, const float* record,                                        // (transmits, elements, n)
    int n_elements, int n_transmits, int first_transmit, int n_used_transmits, int start_sample, long long n_samples,
    float* windows
) {
    const int element = blockIdx.x % n_elements, a = blockIdx.x / n_elements % n_used_transmits;
    const int cell = blockIdx.x / (n_elements * n_used_transmits), transmit = first_transmit + a;
    const int box_index = cell_box[cell];
    const Box box = boxes[box_index];
    const float* channel = record + ((long long)transmit * n_elements + element) * n_samples;
    const int at = transmit_reference[(long long)box_index * n_transmits + transmit]
        + element_reference[(long long)box_index * n_elements + element] + receive_whole[element] + box.begin - start_sample;
    float* window = windows + window_begin[cell] + ((long long)a * n_elements + element) * box.n;
    for (int j = threadIdx.x; j < box.n; j += blockDim.x) {
        const long long t = (long long)at + j;
        const int place = j + box.start;
        window[place < box.n ? place : place - box.n] = t >= 0 && t < n_samples ? channel[t] : 0.0f;
    }
}

// Block (tile, chunk). P of a cell is `transmit`'s Q of reflectivity 1; the parts of a cell are [chunk][scatterer][group],
// from q_begin / ROW.
extern "C" __global__ void __launch_bounds__(THREADS, 2) project(
    const int* tile_cell, const int* tile_first,                                          // (tiles): cell; scatterer in it
    const int* cell_box, const int* cell_first, const int* cell_count, const long long* q_begin,  // (cells)
    const long long* echo_begin,                                                          // (cells), complex numbers
    const Box* boxes, const Sight* sights,
    const float2* element_normal, const float* receive_part,                              // (elements): samples
    const Local* local, const float2* spectra, const float2* q, const float2* echoes,
    int n_elements, int n_used_transmits, const Physics* physics, float* parts
) {
    __shared__ __align__(16) float2 weights[INNER * GROUPS * ROW];
    __shared__ __align__(16) float4 responses[INNER * (CHUNK / 2) * TILE_POINTS];

    const int cell = tile_cell[blockIdx.x], chunk = blockIdx.y;
    const int box_index = cell_box[cell];
    const Box box = boxes[box_index];
    if (chunk * CHUNK >= box.n_bins) return;
    const Physics p = *physics;
    const float inverse_n = 1.0f / (float)box.n;
    const int first_point = tile_first[blockIdx.x];
    const int n_points = min(TILE_POINTS, cell_count[cell] - first_point);
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    const int first_bin = box.first_bin + chunk * CHUNK;

    float2 sums[TRANSMITS][POINTS][FREQUENCIES];
    clear(sums);
    for (int first = 0; first < n_elements; first += INNER) {
        const int n_inner = min(INNER, n_elements - first);
        __syncthreads();
        stage_elements(responses, sights + (long long)box_index * n_elements, element_normal,
                       local + cell_first[cell] + first_point, n_points, first, n_inner, box,
                       (float)first_bin * inverse_n, inverse_n, p);
        for (int k = threadIdx.x; k < n_inner * GROUPS * TRANSMITS; k += blockDim.x) {
            const int a = k % TRANSMITS, g = k / TRANSMITS % GROUPS, i = k / (TRANSMITS * GROUPS), e = first + i;
            float2* row = weights + (i * GROUPS + g) * ROW + a * FREQUENCIES;
            for (int j = 0; j < FREQUENCIES; ++j) {
                const int bin = first_bin + g * FREQUENCIES + j;
                row[j] = make_float2(0.0f, 0.0f);
                if (a >= n_used_transmits || bin >= box.first_bin + box.n_bins) continue;
                const float2 factor =
                    multiply(spectra[box.spectrum + bin], rotation((float)bin * inverse_n * receive_part[e]));
                const long long channel = (long long)a * n_elements + e;
                const float2 value = multiply(factor, echoes[echo_begin[cell] + channel * (box.n / 2 + 1) + bin]);
                row[j] = make_float2(2.0f * value.x, 2.0f * value.y);  // with its mirror in a real record
            }
        }
        __syncthreads();
        add_products(sums, weights, responses, n_inner, lane, group);
    }
#pragma unroll
    for (int point = 0; point < POINTS; ++point) {
        const int s = point * LANES + lane;
        if (s >= n_points) continue;
        const long long row = ((long long)chunk * cell_count[cell] + first_point + s) * GROUPS + group;
        const float2* pressure = q + q_begin[cell] + row * ROW;
        float part = 0.0f;
#pragma unroll
        for (int a = 0; a < TRANSMITS; ++a)
#pragma unroll
            for (int j = 0; j < FREQUENCIES; ++j) {
                const float2 u = pressure[a * FREQUENCIES + j], v = sums[a][point][j];
                part = fmaf(u.x, v.x, fmaf(-u.y, v.y, part));
            }
        parts[q_begin[cell] / ROW + row] = part;
    }
}

// out[scatterer] += its parts, in their order: a thread a point of the group.
extern "C" __global__ void fold(
    const int* point, const int* point_cell,                                              // (points of the group)
    const int* cell_box, const int* cell_first, const int* cell_count, const long long* q_begin,
    const Box* boxes, const float* parts, int n_points, float* out
) {
    for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < n_points; at += gridDim.x * blockDim.x) {
        const int s = point[at], cell = point_cell[at], count = cell_count[cell];
        const int n_chunks = (boxes[cell_box[cell]].n_bins + CHUNK - 1) / CHUNK;
        float sum = out[s];
        for (int chunk = 0; chunk < n_chunks; ++chunk) {
            const long long row = ((long long)chunk * count + s - cell_first[cell]) * GROUPS;
            for (int group = 0; group < GROUPS; ++group) sum += parts[q_begin[cell] / ROW + row + group];
        }
        out[s] = sum;
    }
}
