//! The functions that the compiler calls by name and that a C library would bring.
//!
//! In assembly, so that the compiler cannot turn a loop in here into a call of itself.

use core::arch::global_asm;

global_asm!(
    ".section .text.intrinsics, \"ax\", @progbits",
    ".globl memcpy",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".globl memmove",
    "memmove:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "sub rdi, rsi",
    "cmp rdi, rdx",
    "lea rdi, [rax]",
    "jae 1f",
    "lea rsi, [rsi + rdx - 1]", // the target begins inside the source: from the end backwards
    "lea rdi, [rdi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "1: rep movsb",
    "ret",
    ".globl memset",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    ".globl bcmp",
    ".globl memcmp",
    "bcmp:",
    "memcmp:",
    "mov rcx, rdx",
    "xor eax, eax",
    "cmp rax, rax", // equal when there is nothing to compare
    "repe cmpsb",
    "je 2f",
    "movzx eax, byte ptr [rdi - 1]",
    "movzx ecx, byte ptr [rsi - 1]",
    "xchg eax, ecx", // the first operand is in RDI, the second in RSI
    "sub ecx, eax",
    "mov eax, ecx",
    "2: ret",
    // The alloc library comes with landing pads; a panic aborts, so nothing ever runs them.
    ".globl _Unwind_Resume",
    "_Unwind_Resume: ud2",
    ".globl rust_eh_personality",
    "rust_eh_personality: ud2",
    ".text",
);
