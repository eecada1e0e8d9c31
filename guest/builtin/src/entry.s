# Ring 0: as few instructions as it takes to get to ring 3, and to come back for a moment.
#
# The loader enters _start in 64-bit mode with the first 4 GiB mapped one to one and RSI pointing at
# boot_params. All tables are laid out by the assembler or are filled in by ring 3.

.set KERNEL_CODE, 0x08
.set USER_DATA, 0x18 | 3
.set USER_CODE, 0x20 | 3
.set TASK, 0x28
.set USER_FLAGS, 0x2                # interrupts stay masked

.set EFER, 0xc0000080

.set SERVICE_PARK, 1                # services.rs
.set SERVICE_CPUID, 2

# Offsets in ProcessorBlock (processor.rs).
.set GDT_POINTER, 6
.set IDT_POINTER, 22
.set ENTRY, 32
.set STACK, 40
.set ARGUMENT, 48
.set RING0_STACK, 56
.set GDT, 64
.set TASK_DESCRIPTOR, GDT + TASK
.set TASK_STATE, GDT + 56

.section .ring0, "awx", @progbits
.code64
.globl _start
_start:
    cli
    cld
    mov rbx, offset BOOT_PROCESSOR
    mov [rbx + ARGUMENT], rsi
    mov rax, offset boot_pml4
    mov cr3, rax

# RBX: the block of this processor.
enter_ring3:
    mov rsp, [rbx + RING0_STACK]
    mov [rbx + TASK_STATE + 4], rsp # the stack for what comes back from ring 3
    lea rax, [rbx + GDT]
    mov [rbx + GDT_POINTER + 2], rax
    lea rax, [rbx + TASK_STATE]     # a descriptor holds its base in four pieces
    mov [rbx + TASK_DESCRIPTOR + 2], ax
    shr rax, 16
    mov [rbx + TASK_DESCRIPTOR + 4], al
    shr rax, 8
    mov [rbx + TASK_DESCRIPTOR + 7], al
    shr rax, 8
    mov [rbx + TASK_DESCRIPTOR + 8], eax
    lgdt [rbx + GDT_POINTER]
    lidt [rbx + IDT_POINTER]
    mov eax, TASK
    ltr ax
    mov rax, cr0
    and rax, -13                    # clear EM and TS: the FPU is there and is not switched lazily
    or rax, 2
    mov cr0, rax
    mov rax, cr4
    or rax, 0x600                   # OSFXSR, OSXMMEXCPT: SSE
    mov cr4, rax
    mov rdi, [rbx + ARGUMENT]
    push USER_DATA
    push [rbx + STACK]
    push USER_FLAGS
    push USER_CODE
    push [rbx + ENTRY]
    iretq

# What ring 3 asks for by a breakpoint (services.rs), with the number in EDI. Of all ways into ring 0
# only exceptions work everywhere: a KVM that emulates ring 0 has no software interrupts, and leaves
# what SYSCALL enters without privileges.
.globl service
service:
    cmp edi, SERVICE_PARK
    je 2f
    cmp edi, SERVICE_CPUID
    je 3f
    sti                             # halt until the next interrupt
    hlt
    cli
    iretq
2:  cli                             # halt for ever
    hlt
    jmp 2b
3:  cpuid                           # as the monitor answers; ring 3 may see the host's answer
    iretq

.globl interrupt_ignored
interrupt_ignored:
    iretq

# One stub of 16 bytes for each exception. All are turned into a call of exception_in_ring3.
.balign 16
.globl exception_stubs
exception_stubs:
.set number, 0
.rept 32
    .balign 16
    .if (0x60227d00 >> number) & 1  # these push an error code: 8, 10 to 14, 17, 21, 29, 30
    .else
    push 0
    .endif
    push number
    jmp exception
    .set number, number + 1
.endr

.balign 16
exception:                          # number, error code, RIP, CS, RFLAGS, RSP, SS
    mov rax, offset EXCEPTION
    pop [rax]
    pop [rax + 8]
    mov rcx, [rsp]
    mov [rax + 16], rcx
    mov rcx, [rsp + 24]
    mov [rax + 24], rcx
    mov rcx, cr2
    mov [rax + 32], rcx
    mov rcx, offset exception_in_ring3
    mov [rsp], rcx
    mov qword ptr [rsp + 8], USER_CODE
    mov qword ptr [rsp + 16], USER_FLAGS
    mov rcx, [rax + 40]
    mov [rsp + 24], rcx
    mov qword ptr [rsp + 32], USER_DATA
    iretq

# Where an application processor starts, in real mode. Ring 3 copies this to TRAMPOLINE and fills in
# the two operands at its end. From real mode straight to 64-bit mode.
.set TRAMPOLINE, 0x8000             # TRAMPOLINE in processor.rs

.globl trampoline_start
trampoline_start:
.code16
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16    # lgdt with a base of 32 bits
    .word TRAMPOLINE + (trampoline_gdt - trampoline_start)
    mov eax, 0x620                  # PAE, SSE
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, EFER
    rdmsr
    or eax, 0x100                   # LME
    wrmsr
    mov eax, 0x80000033             # PG, NE, ET, MP, PE
    mov cr0, eax
    .byte 0x66, 0xea                # far jump with an offset of 32 bits
    .long TRAMPOLINE + (trampoline_64 - trampoline_start)
    .word KERNEL_CODE
.code64
trampoline_64:
    .byte 0x8b, 0x1c, 0x25          # mov ebx, [address]
    .long TRAMPOLINE + (trampoline_block - trampoline_start)
    mov rax, offset enter_ring3
    jmp rax
.globl trampoline_gdt
trampoline_gdt:
    .word 0
    .long 0
.globl trampoline_block
trampoline_block:
    .long 0
.globl trampoline_end
trampoline_end:

# The first 4 GiB, one to one, in pages of 2 MiB that ring 3 may use: RAM below 3 GiB, devices above.
.section .tables, "aw", @progbits
.set TABLE, 0x7                     # present, writable, user
.set RAM, 0x87                      # and large
.set DEVICE, 0x9f                   # and uncached

.balign 4096
.globl boot_pml4
boot_pml4:
    .quad boot_pdpt + TABLE
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + TABLE, boot_pd + 0x1000 + TABLE
    .quad boot_pd + 0x2000 + TABLE, boot_pd + 0x3000 + TABLE
    .fill 508, 8, 0
boot_pd:
    .set page, 0
    .rept 1536
    .quad page + RAM
    .set page, page + 0x200000
    .endr
    .rept 512
    .quad page + DEVICE
    .set page, page + 0x200000
    .endr
