# Ring 0: as few instructions as it takes to get to ring 3, and to come back for a moment.
#
# The loader enters _start in 64-bit mode with the first 4 GiB mapped one to one and RSI pointing at
# boot_params. All tables are laid out by the assembler or are filled in by ring 3.

.set KERNEL_CODE, 0x08
.set USER_DATA, 0x18 | 3
.set USER_CODE, 0x20 | 3
.set TASK, 0x28
.set USER_FLAGS, 0x3002            # IOPL 3: ports belong to ring 3; interrupts stay masked

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
.globl enter_ring3
enter_ring3:
    mov rsp, [rbx + RING0_STACK]
    mov [rbx + TASK_STATE + 4], rsp # the stack for what comes back from ring 3
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
.globl boot_pdpt
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
