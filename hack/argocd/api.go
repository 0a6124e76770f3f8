package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// argo is Argo CD's API, as its user interface uses it, for somebody who has logged in.
type argo struct {
	base  string
	token string
}

// login opens a session.
func (a *argo) login(ctx context.Context, user, password string) error {
	var session struct{ Token string }
	err := a.call(ctx, http.MethodPost, "/api/v1/session", nil, map[string]any{
		"username": user, "password": password,
	}, &session)
	if err == nil && session.Token == "" {
		err = errors.New("the answer has no token")
	}
	a.token = session.Token
	return err
}

// call sends BODY, if any, as JSON and decodes the answer into ANSWER, if that is wanted.
func (a *argo) call(ctx context.Context, method, path string, query url.Values, body, answer any) error {
	request, err := a.request(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	response, text, err := exchange(request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, shortened(text))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: %w: %s", method, path, err, shortened(text))
	}
	return nil
}

// errEnough ends a stream from within.
var errEnough = errors.New("enough of this stream")

// stream reads an answer without an end and passes on each part of it, until that returns an error. An answer
// begins with its first part, so this may stay silent for long.
func (a *argo) stream(ctx context.Context, path string, query url.Values, each func(part json.RawMessage) error) error {
	request, err := a.request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, 1000))
		return errors.Join(fmt.Errorf("%s: %s: %s", path, response.Status, text), err)
	}
	decoder := json.NewDecoder(response.Body)
	for {
		var part struct {
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := decoder.Decode(&part); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if part.Error != nil {
			return fmt.Errorf("%s: %s", path, part.Error.Message)
		}
		if err := each(part.Result); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

func (a *argo) request(
	ctx context.Context, method, path string, query url.Values, body any,
) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.base+path+"?"+query.Encode(), content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token)
	}
	return request, nil
}

func exchange(request *http.Request) (*http.Response, []byte, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, text, err
}

func shortened(text []byte) string {
	const longest = 600
	if len(text) > longest {
		return string(text[:longest]) + "…"
	}
	return string(text)
}
