"""What runs on a GPU: kernels in Triton, and what joins them. Reached from the runner alone.

Nothing imports Triton where no GPU is asked for. With TRITON_INTERPRET=1, set before Triton is
imported, every kernel runs on the CPU, slowly, which is how the tests run them.
"""
