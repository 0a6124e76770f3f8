package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// identity is a certificate and its key, both PEM.
type identity struct {
	cert, key []byte
}

// pki is what one cluster is trusted by. Each cluster has its own, so that a mix-up between clusters is noticed.
type pki struct {
	ca    []byte
	admin identity
}

// validity is generous towards clocks that differ, and longer than any test.
const validity = 7 * 24 * time.Hour

// newPKI makes a certificate authority with a server certificate, an administrator's and those between API server
// and kubelet, and puts what the servers read into dir. The authority's key is forgotten.
func newPKI(dir, cluster string) (pki, error) {
	ca := template(pkix.Name{CommonName: cluster + " ca"})
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign
	caKey, err := newKey()
	if err != nil {
		return pki{}, err
	}
	caPEM, err := sign(ca, ca, caKey, caKey)
	if err != nil {
		return pki{}, err
	}

	server := template(pkix.Name{CommonName: "kube-apiserver"})
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 0, 1)}
	server.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	serving, err := issue(server, ca, caKey)
	if err != nil {
		return pki{}, err
	}

	client := template(pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}})
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	admin, err := issue(client, ca, caKey)
	if err != nil {
		return pki{}, err
	}

	caller := template(pkix.Name{CommonName: "kube-apiserver-kubelet-client"})
	caller.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	kubeletCaller, err := issue(caller, ca, caKey)
	if err != nil {
		return pki{}, err
	}

	node := template(pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}})
	node.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	node.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	kubelet, err := issue(node, ca, caKey)
	if err != nil {
		return pki{}, err
	}

	signer, err := newKey()
	if err != nil {
		return pki{}, err
	}
	signerPEM, err := encodeKey(signer)
	if err != nil {
		return pki{}, err
	}
	for name, content := range map[string][]byte{
		fileCA:            caPEM,
		fileServerCert:    serving.cert,
		fileServerKey:     serving.key,
		fileServiceSigner: signerPEM,
		fileKubeletCert:   kubelet.cert,
		fileKubeletKey:    kubelet.key,
		fileKubeletCaller: kubeletCaller.cert,
		fileCallerKey:     kubeletCaller.key,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return pki{}, err
		}
	}
	return pki{ca: caPEM, admin: admin}, nil
}

func template(subject pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject:   subject,
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(validity),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
}

func issue(cert, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (identity, error) {
	key, err := newKey()
	if err != nil {
		return identity{}, err
	}
	certPEM, err := sign(cert, ca, key, caKey)
	if err != nil {
		return identity{}, err
	}
	keyPEM, err := encodeKey(key)
	return identity{cert: certPEM, key: keyPEM}, err
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	return key, nil
}

func sign(cert, ca *x509.Certificate, key, caKey *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	cert.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", cert.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
