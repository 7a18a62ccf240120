// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

// A FIFO from Go: os.OpenFile polls, os.NewFile of a blocking descriptor waits in a thread. Ends with PASS, or a panic.
//
//	cargo lab run --install golang-go --mem 2G --share guest-tests/languages -- go run fifo.go
package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

const path = "/dev/globalfifo0"

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(what string, holds bool) {
	if !holds {
		panic(what)
	}
	fmt.Println(what)
}

func main() {
	// The runtime makes the descriptor non-blocking and gives it to its poller: a goroutine that waits costs no thread.
	polled, err := os.OpenFile(path, os.O_RDWR, 0)
	must(err)
	buffer := make([]byte, 100)
	must(polled.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
	_, err = polled.Read(buffer)
	expect("os.OpenFile: a deadline ends a read of the empty FIFO", errors.Is(err, os.ErrDeadlineExceeded))
	must(polled.SetReadDeadline(time.Time{}))

	got := make(chan string)
	go func() {
		count, err := polled.Read(buffer)
		must(err)
		got <- string(buffer[:count])
	}()
	_, err = polled.Write([]byte("to the goroutine"))
	must(err)
	expect("os.OpenFile: a goroutine waits in Read, and gets what is there", <-got == "to the goroutine")

	// A descriptor that is blocking stays so: Read waits in a thread of its own, and knows no deadline.
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	must(err)
	blocking := os.NewFile(uintptr(fd), path)
	err = blocking.SetReadDeadline(time.Now())
	expect("os.NewFile: no deadline for a blocking descriptor", errors.Is(err, os.ErrNoDeadline))
	go func() {
		count, err := blocking.Read(buffer)
		must(err)
		got <- string(buffer[:count])
	}()
	_, err = polled.Write([]byte("to the thread"))
	must(err)
	expect("os.NewFile: a thread waits in Read", <-got == "to the thread")

	// Write calls write(2) until all is taken, so it waits for space, also in the poller.
	large := make([]byte, 10000)
	go func() {
		total := 0
		for total < len(large) {
			count, err := blocking.Read(buffer)
			must(err)
			total += count
		}
		got <- fmt.Sprint(total)
	}()
	count, err := polled.Write(large)
	must(err)
	expect("Write of more than the FIFO holds returns when all is taken", count == len(large) && <-got == "10000")
	fmt.Println("PASS")
}
