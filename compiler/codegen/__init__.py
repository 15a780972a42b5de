"""Code generation: fused kernels to LLVM IR text, and that text to machine code."""
