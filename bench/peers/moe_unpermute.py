"""The merge of moeUnpermute as a CUDA kernel, float32, timed by graph replay, beside what one launch costs.

The kernel is made as vLLM's is: a block of 256 threads for each token, 16 bytes a thread at a time, and a loop over the
token's slots. It needs an NVIDIA GPU and torch 2.9 or later, and vLLM is not needed.

    python3 bench/peers/moe_unpermute.py
"""
import statistics

import torch

SOURCE = r"""
extern "C" __global__ void unpermute(float4* out, const float4* rows, const float* weights, const int* row_of,
                                     const long long* num_rows, int topk, int chunks) {
  int token = blockIdx.x;
  for (int c = threadIdx.x; c < chunks; c += blockDim.x) {
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int k = 0; k < topk; ++k) {
      int row = row_of[token * topk + k];
      float weight = weights[token * topk + k];
      if (row < 0 || row >= *num_rows) continue;
      float4 chunk = rows[(long long)row * chunks + c];
      sum.x += weight * chunk.x;
      sum.y += weight * chunk.y;
      sum.z += weight * chunk.z;
      sum.w += weight * chunk.w;
    }
    out[(long long)token * chunks + c] = sum;
  }
}
extern "C" __global__ void touch(float* out) { if (threadIdx.x == 0) out[blockIdx.x] = 1.f; }
"""

LAYERS = {"mixtral": (4096, 2), "qwen3": (2048, 8), "gpt-oss": (2880, 4), "granite": (1024, 8)}
CALLS = 20


def microseconds(call):
    """Of one call: the median of replays of a graph of CALLS calls, divided."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(CALLS):
            call()
    times = []
    for _ in range(60):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / CALLS)
    return statistics.median(times[10:])


def main():
    unpermute = torch.cuda._compile_kernel(SOURCE, "unpermute")
    touch = torch.cuda._compile_kernel(SOURCE, "touch")
    print(torch.cuda.get_device_name())
    one = torch.zeros(1, device="cuda")
    print(f"a launch that writes one float: {microseconds(lambda: touch((1, 1, 1), (32, 1, 1), (one,))):.2f} us")
    for name, (hidden, topk) in LAYERS.items():
        for tokens in (1, 16, 64, 256, 1024, 4096):
            num_rows = tokens * topk
            rows = torch.randn(num_rows, hidden, device="cuda")
            weights = torch.rand(tokens, topk, device="cuda")
            row_of = torch.randperm(num_rows, device="cuda").int()
            count = torch.tensor([num_rows], device="cuda")
            out = torch.empty(tokens, hidden, device="cuda")
            arguments = (out, rows, weights, row_of, count, topk, hidden // 4)
            call = lambda: unpermute((tokens, 1, 1), (256, 1, 1), arguments)
            call()
            wanted = (rows[row_of.long()].view(tokens, topk, hidden) * weights[:, :, None]).sum(1)
            assert torch.allclose(out, wanted, rtol=1e-4, atol=1e-4), name
            print(f"{name} T={tokens}: {microseconds(call):.2f} us")


main()
