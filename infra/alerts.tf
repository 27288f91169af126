# What went wrong, from the logs, by e-mail: one an hour at most of each kind, as a line that matches is enough. Lines are
# matched as they are, so no metric has to be there before, and no kind of resource has to be one that Monitoring knows.
resource "google_monitoring_notification_channel" "email" {
  display_name = "Melodify: e-mail"
  type         = "email"
  labels       = { email_address = var.alert_email }
  depends_on   = [google_project_service.this]
}

locals {
  # Of a pull request's build only who opened it needs to hear.
  not_of_pulls = local.has_builds == 0 ? "" : "AND resource.labels.build_trigger_id != \"${google_cloudbuild_trigger.pull[0].trigger_id}\""

  alerts = {
    # As melodify_lib/logs.py writes them with MELODIFY_LOG_FORMAT=json. Other severities are not told: a song that was
    # asked for and cannot be made is no error of ours.
    errors = <<-END
      severity >= ERROR
      AND (
        (resource.type = "cloud_run_revision" AND resource.labels.service_name = "${local.web_name}")
        OR (resource.type = "cloud_run_job" AND resource.labels.job_name = "melodify-migrate")
        OR resource.type = "aiplatform.googleapis.com/Endpoint"
        OR resource.type = "ml_job"
      )
    END

    # Builds of main and releases, the night and the clean-up: Cloud Build ends the log of one that failed so. And a clock
    # that could not start one.
    builds = <<-END
      (resource.type = "build" AND textPayload =~ "^(ERROR|TIMEOUT)" ${local.not_of_pulls})
      OR (resource.type = "cloud_scheduler_job" AND resource.labels.job_id =~ "^melodify-" AND severity >= ERROR)
    END
  }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.alerts

  display_name          = "Melodify: ${each.key}"
  combiner              = "OR"
  notification_channels = [google_monitoring_notification_channel.email.id]
  severity              = "WARNING"

  conditions {
    display_name = "a line in the log"
    condition_matched_log {
      filter = each.value
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "docs/operations.md says what each line means and what to do. The lines: Logs Explorer, `severity>=ERROR`; one song's: `labels.track=\"…\"` or its trace."
  }

  alert_strategy {
    auto_close = "86400s"

    notification_rate_limit {
      period = "3600s"
    }
  }
}
