package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestHandler(t *testing.T) {
	server := httptest.NewServer(newHandler("host-1"))
	defer server.Close()

	tests := []struct {
		method, path string
		status       int
		contentType  string
		body         string // not looked at when empty
		allow        string
	}{
		{method: "GET", path: "/", status: 200, contentType: "application/json",
			body: `{"message":"Hello World","hostname":"host-1","version":"dev"}` + "\n"},
		{method: "GET", path: "/health", status: 200, contentType: "application/json",
			body: `{"status":"ok"}` + "\n"},
		{method: "HEAD", path: "/health", status: 200, contentType: "application/json"},
		{method: "GET", path: "/health/", status: 404, contentType: "text/plain; charset=utf-8"},
		{method: "GET", path: "/other", status: 404, contentType: "text/plain; charset=utf-8"},
		{method: "POST", path: "/", status: 405, contentType: "text/plain; charset=utf-8", allow: "GET, HEAD"},
		{method: "DELETE", path: "/health", status: 405, contentType: "text/plain; charset=utf-8", allow: "GET, HEAD"},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			request, err := http.NewRequest(test.method, server.URL+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != test.status {
				t.Errorf("status is %d, want %d", response.StatusCode, test.status)
			}
			if got := response.Header.Get("Content-Type"); got != test.contentType {
				t.Errorf("content type is %q, want %q", got, test.contentType)
			}
			if got := response.Header.Get("Allow"); got != test.allow {
				t.Errorf("allowed methods are %q, want %q", got, test.allow)
			}
			if test.body != "" && string(body) != test.body {
				t.Errorf("body is %q, want %q", body, test.body)
			}
		})
	}
}

// A request that is open when the app is told to stop is still answered.
func TestServeStopsGracefully(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	entered, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		io.WriteString(w, "late")
	})
	stopped := make(chan error, 1)
	go func() { stopped <- serve(ctx, listener, handler) }()

	answered := make(chan string, 1)
	url := "http://" + listener.Addr().String()
	go func() {
		response, err := http.Get(url)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answered <- string(body)
	}()

	<-entered
	stop()
	// No new connection is taken while the old request is still open.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		connection, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			break
		}
		connection.Close()
		if time.Now().After(deadline) {
			t.Fatal("the listener is still open")
		}
	}
	close(release)
	if got := <-answered; got != "late" {
		t.Errorf("the open request got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("serve failed: %v", err)
	}
}

func TestRunRefusesAnAddressInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := run(context.Background(), listener.Addr().String()); err == nil {
		t.Error("two listeners on one address")
	}
}

// The program itself: its version comes from the linker, and both signals end it with success.
func TestProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hello")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v7", "-o", program, ".")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, output)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			var log strings.Builder
			reader, writer := io.Pipe()
			command := exec.Command(program, "-listen", "127.0.0.1:0")
			command.Stderr = io.MultiWriter(&log, writer)
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			// It says that it listens in its first line.
			if _, err := reader.Read(make([]byte, 1024)); err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, reader)
			if err := command.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := command.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			for _, want := range []string{"version=v7", "stopping"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("its log lacks %q:\n%s", want, log.String())
				}
			}
		})
	}
}
