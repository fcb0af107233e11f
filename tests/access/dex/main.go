// Dex with its state in memory, for the tests of company issuers: one client, one person with a password, and the mock
// connector, whose person has a group.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:5556", "host:port")
	issuer := flag.String("issuer", "http://127.0.0.1:5556/dex", "URL of the issuer")
	web := flag.String("web", "web", "folder of dex's own templates")
	rotate := flag.Duration("rotate", 6*time.Hour, "age at which signing keys change")
	flag.Parse()

	logger := logrus.New()
	hash, err := bcrypt.GenerateFromPassword([]byte("company password"), bcrypt.DefaultCost)
	if err != nil {
		log.Fatal(err)
	}
	store := memory.New(logger)
	store = storage.WithStaticClients(store, []storage.Client{{
		ID: "kehu", Secret: "company secret", Name: "Kehu", RedirectURIs: []string{"http://127.0.0.1/callback"},
	}, {
		ID: "other", Secret: "company secret", Name: "Other", RedirectURIs: []string{"http://127.0.0.1/callback"},
	}})
	store = storage.WithStaticPasswords(store, []storage.Password{{
		Email: "alice@company.test", Username: "alice", UserID: "08a8684b", Hash: hash,
	}}, logger)
	store = storage.WithStaticConnectors(store, []storage.Connector{
		{ID: server.LocalConnector, Name: "Password", Type: server.LocalConnector},
		{ID: "mock", Name: "Mock", Type: "mockCallback"},
	})
	handler, err := server.NewServer(context.Background(), server.Config{
		Issuer: *issuer, Storage: store, SkipApprovalScreen: true, RotateKeysAfter: *rotate,
		Web: server.WebConfig{Dir: *web}, Logger: logger, PrometheusRegistry: prometheus.NewRegistry(),
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(*listen, handler))
}
